package codec

import "github.com/doppel-iot/doppel/actors/twin"

// Range is what a metric's values may be, both ends included.
type Range struct{ Min, Max float64 }

// SetRanges says which metrics have a range; a sample with a value outside is refused. The map is kept
// and must not change afterwards; nil: none has.
//
// What is refused is logged as refused, so that the ranges may change at any time and a replay needs
// none.
func (d *Decoder) SetRanges(ranges map[string]Range) { d.ranges = ranges }

// checkRanges refuses the sample being decoded if one of its values is out of range.
func (d *Decoder) checkRanges(readings []twin.Reading) {
	for i := range readings {
		r, ok := d.ranges[readings[i].Name]
		if v := readings[i].Value; ok && (v < r.Min || v > r.Max) {
			d.refuse(twin.OutOfRange, "metrics."+readings[i].Name, "%v is out of range, %v to %v is taken", v, r.Min, r.Max)
			return
		}
	}
}
