"""The outside world: Kafka, stores, Parquet, registries, webhooks, files."""
