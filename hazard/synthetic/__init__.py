"""Draw labelled clips and recordings, for the demo and the tests."""
