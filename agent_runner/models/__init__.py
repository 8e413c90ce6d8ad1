"""The providers of models. Importing this package imports none of their SDKs; the first model does."""
