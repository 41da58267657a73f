"""The inspection station: a page and a REST service over the same calls as Python and the command line. Needs the extra `server`."""
