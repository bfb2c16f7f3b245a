package fleet

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/device"
)

func samples(n int) []device.Sample {
	all := make([]device.Sample, n)
	for i := range all {
		all[i] = device.Sample{
			Boot: 1 << 40, Seq: uint64(i) + 300, Time: 1795341600123456789 + int64(i),
			Readings: []device.Reading{{Name: "a", Value: -0.1}, {Name: "temperature", Value: 21.537 + float64(i)}},
		}
	}
	return all
}

func metrics(s device.Sample) map[string]float64 {
	m := make(map[string]float64)
	for _, r := range s.Readings {
		m[r.Name] = r.Value
	}
	return m
}

// Whatever the format, another reader of it must find the same message.
func TestEncode(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 40} {
		in := samples(n)
		want := &doppelv1.Telemetry{Boot: &in[0].Boot}
		if n == 1 {
			want.Seq, want.Time, want.Metrics = &in[0].Seq, &in[0].Time, metrics(in[0])
		} else {
			for i := range in {
				want.Samples = append(want.Samples, &doppelv1.Sample{Seq: &in[i].Seq, Time: &in[i].Time, Metrics: metrics(in[i])})
			}
		}
		for format, decode := range map[Format]func([]byte, *doppelv1.Telemetry) error{
			Protobuf: func(b []byte, m *doppelv1.Telemetry) error { return proto.Unmarshal(b, m) },
			JSON:     func(b []byte, m *doppelv1.Telemetry) error { return json.Unmarshal(b, m) },
			Msgpack: func(b []byte, m *doppelv1.Telemetry) error {
				var fields map[string]any
				if err := msgpack.Unmarshal(b, &fields); err != nil {
					return err
				}
				text, err := json.Marshal(fields)
				if err != nil {
					return err
				}
				return json.Unmarshal(text, m)
			},
		} {
			e := encoder{format: format}
			var got doppelv1.Telemetry
			if err := decode(e.append(nil, in), &got); err != nil {
				t.Errorf("%s, %d samples: %v", format, n, err)
			}
			if diff := cmp.Diff(want, &got, protocmp.Transform()); diff != "" {
				t.Errorf("%s, %d samples (-want +got):\n%s", format, n, diff)
			}
		}
	}
}
