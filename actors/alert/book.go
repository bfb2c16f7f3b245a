package alert

import "github.com/doppel-iot/doppel/actors/baseline"

// Observation is one reading of a sample that was applied in order.
type Observation struct {
	Metric       string
	Value        float64
	Scored       bool // Plain and Score mean something
	Plain, Score float64
	Stats        baseline.Stats // window that Value was scored against
	Boot, Seq    uint64
	Time         int64 // event time, unix nanoseconds
}

// Book is what one twin remembers of its alerts. The zero value is ready.
type Book struct{}

// Sample judges one reading.
func (b *Book) Sample(s *Set, device string, o *Observation, emit *[]Alert) {}

// Seen notes an accepted message with samples, received at now.
func (b *Book) Seen(s *Set, device string, now int64, emit *[]Alert) {}

// Presence notes that the device is online or not since at.
func (b *Book) Presence(s *Set, device string, online bool, at int64, emit *[]Alert) {}

// Gap notes that missing numbers were given up on.
func (b *Book) Gap(s *Set, device string, at int64, missing uint64, emit *[]Alert) {}

// Tick does what is due at now.
func (b *Book) Tick(s *Set, device string, now int64, emit *[]Alert) {}

// Due is when Tick has something to do; 0: nothing.
func (b *Book) Due() int64 { return 0 }

// Open lists pending and firing alerts in a stable order.
func (b *Book) Open() []Alert { return nil }
