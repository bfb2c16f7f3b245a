package fault

import (
	"context"
	"fmt"
	"time"

	"github.com/doppel-iot/doppel/sim/device"
	"github.com/doppel-iot/doppel/sim/fleet"
	"github.com/doppel-iot/doppel/sim/oracle"
)

// Load is the fleet that goes on meanwhile.
type Load struct {
	Devices      int
	Rate         float64 // messages a second, of all devices
	Connections  int
	Dup, Reorder float64
	Anomalies    float64 // per device and minute
}

// DefaultLoad is a little more than 3,000 messages a second, repeated and swapped ones not counted.
func DefaultLoad() Load {
	return Load{Devices: 200, Rate: 3200, Connections: 20, Dup: 0.03, Reorder: 0.03, Anomalies: 4}
}

// settle is how long a fleet waits at the end for its acknowledgements.
const settle = 2 * time.Minute

// flow is a load under way.
type flow struct {
	fleet   *fleet.Fleet
	devices []*device.Device
	boot    uint64
	began   time.Time
	stop    context.CancelFunc
	done    chan struct{}
	result  fleet.Result
	took    time.Duration // until everything was acknowledged
	sending time.Duration // while new samples were taken
}

// ids of the devices of a load.
func (l Load) ids() []string {
	ids := make([]string, l.Devices)
	for i := range ids {
		ids[i] = fmt.Sprintf("torture-%04d", i+1)
	}
	return ids
}

func (l Load) interval() time.Duration {
	return time.Duration(float64(time.Second) * float64(l.Devices) / l.Rate)
}

// start begins to send, until stop.
func (l Load) start(ctx context.Context, seed, boot uint64, broker string, watch fleet.Observer) (*flow, error) {
	f, err := fleet.New(fleet.Config{
		Broker: broker, Connections: l.Connections, Seed: seed, Settle: settle, Observer: watch,
		ClientID: fmt.Sprintf("torture-%x", boot), Faults: fleet.Faults{Dup: l.Dup, Reorder: l.Reorder},
	})
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	connecting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := f.Connect(connecting); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	w := &flow{fleet: f, boot: boot, began: time.Now(), done: make(chan struct{})}
	var sources []fleet.Source
	for i, id := range l.ids() {
		d := device.New(device.Config{
			ID: id, Seed: seed, Index: uint64(i), Boot: boot, Metrics: 3, Anomalies: l.Anomalies, Interval: int64(l.interval()),
			Start: w.began.UnixNano() + int64(l.interval())*int64(i)/int64(l.Devices),
		})
		w.devices = append(w.devices, d)
		sources = append(sources, d)
	}
	sending, stop := context.WithCancel(ctx)
	w.stop = stop
	go func() {
		defer close(w.done)
		w.result = f.Run(sending, sources, w.began.Add(time.Hour).UnixNano())
		w.took = time.Since(w.began)
	}()
	return w, nil
}

// end stops sending, waits until everything is acknowledged, and gives what the devices know.
func (w *flow) end() ([]oracle.Device, fleet.Progress) {
	w.sending = time.Since(w.began)
	w.stop()
	<-w.done
	all := make([]oracle.Device, len(w.devices))
	for i, d := range w.devices {
		r := w.result.Devices[i]
		all[i] = oracle.Device{ID: d.ID(), Boot: w.boot, Sum: d.Expected(), Labels: d.Labels(), Unacked: r.Unacked, Swapped: r.Swapped}
	}
	return all, w.fleet.Progress()
}
