"""The borders: small abstract classes whose docstrings are the specification."""
