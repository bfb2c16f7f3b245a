package codec

import (
	"fmt"

	"github.com/doppel-iot/doppel/actors/twin"
)

// Refusal is why a message, or one sample of it, cannot be taken.
type Refusal struct { //nolint:errname // what becomes of a message first, an error only where one is asked for
	Reason twin.Reason
	// Detail names the place (index and field) and the remedy, for people.
	Detail string
	// Numbered: the sample's number could be read, and Boot and Seq are it.
	Numbered  bool
	Boot, Seq uint64
}

// Error makes a Refusal an error.
func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Detail }

func refuse(reason twin.Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}
