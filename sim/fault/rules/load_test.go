package rules

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/sim/device"
)

// deviceLoad is a device: what it has yet to send, and what it knows of all it will have sent.
type deviceLoad struct {
	id       string
	numbered bool
	sum      device.Chain
	unsent   []*message
	last     *message // kept for a stray owner at the end; nil: sent
}

// message is kept by its device until it is acknowledged.
type message struct {
	kind     host.MessageKind
	device   string
	payload  string
	numbers  []number
	poison   bool
	received int64 // stamped once

	sent   time.Time // last time
	open   int       // attempts nobody has answered
	stored bool      // on its way to ingest, or there
	acked  bool
}

// newDevices makes devices and all they will send, in the order they would send it.
func newDevices(rng *rand.Rand, devices, messages int) []*deviceLoad {
	var all []*deviceLoad
	base := time.Now().UnixNano()
	for d := range devices {
		dev := &deviceLoad{id: fmt.Sprintf("dev-%d", d), numbered: d > 0} // one without numbers and times
		seq := uint64(0)
		hot := false
		for range messages {
			m := &message{kind: host.Telemetry, device: dev.id}
			if rng.IntN(25) == 0 {
				m.poison, m.payload = true, fmt.Sprintf("{broken %d %d", d, rng.Uint64())
				dev.unsent = append(dev.unsent, m)
				continue
			}
			switch rng.IntN(20) { // at least once, in any order: what they lead to is in the state hash
			case 0:
				m.kind, m.payload = host.Reported, fmt.Sprintf(`{"version":%d}`, rng.IntN(1000))
			case 1:
				m.kind, m.payload = host.Status, fmt.Sprintf(`{"online":%t,"boot":1,"session":%d}`, rng.IntN(2) == 0, seq)
			}
			if m.kind != host.Telemetry {
				dev.unsent = append(dev.unsent, m)
				continue
			}
			var samples []string
			for range 1 + rng.IntN(3) {
				seq++
				if rng.IntN(6) == 0 {
					hot = !hot
				}
				t := 20 + rng.IntN(20)
				if hot {
					t += 40
				}
				if !dev.numbered {
					samples = append(samples, fmt.Sprintf(`{"metrics":{"t":%d}}`, t))
					continue
				}
				at := base + int64(seq)*int64(10*time.Millisecond)
				samples = append(samples, fmt.Sprintf(`{"seq":%d,"time":%d,"metrics":{"t":%d}}`, seq, at, t))
				m.numbers = append(m.numbers, number{dev.id, 1, seq})
				dev.sum.Add(&device.Sample{Boot: 1, Seq: seq, Time: at, Readings: []device.Reading{{Name: "t", Value: float64(t)}}})
			}
			boot := ""
			if dev.numbered {
				boot = `"boot":1,`
			}
			m.payload = fmt.Sprintf(`{%s"samples":[%s]}`, boot, strings.Join(samples, ","))
			dev.unsent = append(dev.unsent, m)
		}
		dev.last, dev.unsent = dev.unsent[len(dev.unsent)-1], dev.unsent[:len(dev.unsent)-1]
		all = append(all, dev)
	}
	return all
}

// take gives one of the next messages of d: seldom the first, so that they arrive in disorder.
func (d *deviceLoad) take(rng *rand.Rand) *message {
	if len(d.unsent) == 0 {
		return nil
	}
	i := 0
	if rng.IntN(3) == 0 {
		i = rng.IntN(min(4, len(d.unsent)))
	}
	m := d.unsent[i]
	d.unsent = append(d.unsent[:i:i], d.unsent[i+1:]...)
	return m
}
