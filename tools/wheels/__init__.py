"""`run.py wheels`: builds the wheels for Linux and Windows on one Linux machine; checks them."""
