"""Read a clip as preprocessed frames, exact by timestamp: decoding, sampling, windows and views."""
