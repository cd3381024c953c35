"""The demo: a real ComfyUI server samples the bundled model, dense and sparse, and a report."""
