"""Seven towns' traffic, reproducible from a seed."""
