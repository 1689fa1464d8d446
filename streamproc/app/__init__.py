"""The composition root: the one place that names every concrete class.

`config` says what is wanted, `connectors` and `runtime` can do it, this package puts them
together: `service` for Kafka, `replay` for files, `warmup` for kernels. Each is imported by
itself, so that the service does not carry what only files need. Command line, demo, benches
and process tests all start here.
"""
