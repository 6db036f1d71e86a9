"""Files on disk: formats, samples, writing without leaving halves."""
