package cli

import "errors"

// Detect runs a detector of the core over every CSV below data and writes the scored series below out.
func Detect(detector, data, out string) error { return errors.New("not built yet") }
