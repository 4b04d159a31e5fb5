"""The training job: from folders of CT images to an evaluated model (see `python -m job --help`)."""
