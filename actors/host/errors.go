package host

import "errors"

// What a query or a message can meet; people see these words.
var (
	ErrUnknownDevice = errors.New("no such device")
	ErrUnknownAlert  = errors.New("no such alert")
	ErrAlertResolved = errors.New("the alert is resolved")
	ErrConflict      = errors.New("the twin has changed since it was read: read it again, and decide anew")
	ErrUnavailable   = errors.New("the partition is being restored or moved")
	ErrClosed        = errors.New("the partition is not served by this node")
	ErrSaturated     = errors.New("the partition takes no messages: what it has does not become durable")
)
