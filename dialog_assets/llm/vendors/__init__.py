"""The vendors' wire formats: each turns a request into one HTTP exchange, and any trouble into one VendorFailure."""
