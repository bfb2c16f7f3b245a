// Package device is one simulated device: believable readings, labelled anomalies, numbering, and
// the digests its twin must come to.
//
// It does not send anything and knows no clock: the fleet asks when the next sample is due and
// takes it. PURE: everything follows from the seed and the arguments; a Device belongs to one
// goroutine.
package device

// Sample is one numbered sample of a device. Readings are in byte order of name and valid until the
// next one is taken.
type Sample struct {
	Boot, Seq uint64
	Time      int64 // event time by the device's own clock, unix nanoseconds
	Readings  []Reading
}

// Reading is the value of one metric.
type Reading struct {
	Name  string
	Value float64
}
