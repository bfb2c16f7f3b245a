package command

// The exit codes of `doppel sim`.
const (
	exitDifferent   = 1 // something acknowledged was lost, doubled or out of order, or a check failed
	exitUsage       = 2
	exitUnreachable = 4
)

// ExitError is an error that decides the exit code of the process.
type ExitError struct {
	Code int
	Err  error
}

// Error is that of the cause.
func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// ExitCode is the exit code.
func (e *ExitError) ExitCode() int { return e.Code }
