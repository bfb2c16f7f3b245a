package codec

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/twin"
)

func TestRanges(t *testing.T) {
	d := NewDecoder()
	d.SetRanges(map[string]Range{"temperature": {-40, 125}, "on": {0, 0}, "rate": {0, math.Inf(1)}})
	for _, tc := range []struct {
		name, payload string
		want          *Refusal
	}{
		{"inside", `{"seq":1,"metrics":{"temperature":21.5,"on":false,"rate":1e300}}`, nil},
		{"at the ends", `{"samples":[{"seq":1,"metrics":{"temperature":-40}},{"seq":2,"metrics":{"temperature":125}}]}`, nil},
		{"no range", `{"seq":1,"metrics":{"pressure":1e9}}`, nil},
		{
			"above", `{"boot":3,"seq":7,"metrics":{"pressure":1,"temperature":140.25}}`,
			&Refusal{twin.OutOfRange, "metrics.temperature: 140.25 is out of range, -40 to 125 is taken", true, 3, 7},
		},
		{"below", `{"metrics":{"rate":-0.5}}`, &Refusal{Reason: twin.OutOfRange, Detail: "metrics.rate: -0.5 is out of range, 0 to +Inf is taken"}},
		{"a bool", `{"metrics":{"on":true}}`, &Refusal{Reason: twin.OutOfRange, Detail: "metrics.on: 1 is out of range, 0 to 0 is taken"}},
		{
			"in a batch", `{"samples":[{"seq":1,"metrics":{"temperature":1000}},{"seq":2,"metrics":{"temperature":20}}]}`,
			&Refusal{twin.OutOfRange, "samples[0].metrics.temperature: 1000 is out of range, -40 to 125 is taken", true, 0, 1},
		},
		{"the first thing wrong counts", `{"seq":0,"metrics":{"temperature":1000}}`, &Refusal{Reason: twin.NumberRange, Detail: "seq: 0 is less than 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			items, r := d.Telemetry("", []byte(tc.payload), received)
			if r != nil || len(items) == 0 {
				t.Fatalf("%d items, %v", len(items), r)
			}
			if diff := cmp.Diff(tc.want, items[0].Refusal); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
			for _, it := range items[1:] {
				if it.Refusal != nil {
					t.Errorf("another sample: %v", it.Refusal)
				}
			}
		})
	}
	d.SetRanges(nil)
	items, r := d.Telemetry("", []byte(`{"metrics":{"temperature":140}}`), received)
	if r != nil || items[0].Refusal != nil {
		t.Errorf("without ranges: %v, %v", r, items)
	}
}
