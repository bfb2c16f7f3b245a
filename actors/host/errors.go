package host

import "errors"

// What a query can meet.
var (
	ErrUnknownDevice = errors.New("host: unknown device")
	ErrUnknownAlert  = errors.New("host: unknown alert")
	ErrUnavailable   = errors.New("host: partition is moving or being restored")
	ErrClosed        = errors.New("host: closed")
)
