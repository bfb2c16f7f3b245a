// Package codec translates between bytes and the types of the twin: what devices send (JSON,
// protobuf, MessagePack), the records of doppel.telemetry, and the public API's messages.
//
// It checks form only (syntax, names, ranges, limits); whether a well-formed sample is new, late or
// stale is the twin's business. It does no I/O and reads no clock: the receive time comes with each
// call.
//
// Decoders keep buffers between calls, so one belongs to one partition's goroutine, and what a call
// returns is valid until the next call. The functions without a decoder may be called from anywhere.
package codec

// The limits of one message.
const (
	MaxMessage = 64 << 10 // bytes
	MaxSamples = 1000     // in a batch
	MaxMetrics = 64       // in one sample
	MaxDepth   = 10       // levels of objects and arrays in reported properties
)

// ValidMetric says whether name is that of a metric: a letter or _, then up to 63 letters, digits or _.
func ValidMetric(name string) bool { return validMetric([]byte(name)) }

// ValidDevice says whether id is a legal device id: 1-128 bytes of [A-Za-z0-9._:@-].
func ValidDevice(id []byte) bool {
	if len(id) == 0 || len(id) > 128 {
		return false
	}
	for _, c := range id {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == ':', c == '@', c == '-':
		default:
			return false
		}
	}
	return true
}
