"""From a trained model to answers: export, publish, serve, predict (see `python -m serving --help`)."""
