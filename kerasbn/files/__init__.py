"""Files on disk: formats, samples, options, writing without leaving halves."""
