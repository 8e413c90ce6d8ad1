"""The tests. They mirror the source; `pipeline` reads as the list of promises."""
