"""python -m paroattention: doctor, profile, view."""
