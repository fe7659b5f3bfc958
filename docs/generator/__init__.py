"""Pages made from the code: settings, errors, the API, the command line. Each module has one function, `page`."""
