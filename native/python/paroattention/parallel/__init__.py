"""One run on several GPUs: each rank computes some heads of the same plan (docs/parallel.md)."""
