"""`run.py web-viewer`: the viewer as WebAssembly, from a bare machine to the files of a wheel."""
