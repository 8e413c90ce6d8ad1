"""What tests run things with: real servers, real processes, one wait."""
