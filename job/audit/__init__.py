"""What a data set gives away without its pixels, and what is wrong with it: `python -m job audit`."""
