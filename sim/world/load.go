package world

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
	"github.com/doppel-iot/doppel/sim/device"
)

// number names a sample: of a device with numbers by them, otherwise by a value that occurs once.
type number struct {
	device    string
	boot, seq uint64
}

// load is a device: what it has yet to send, and what it knows of all it will have sent.
type load struct {
	id       string
	numbered bool
	part     int32
	sum      device.Chain
	unsent   []*message
	sent     []*message
}

// message is what a device publishes.
type message struct {
	kind    host.MessageKind
	device  string
	part    int32 // its home
	payload string
	numbers []number
	poison  bool
	patch   string // of a reported message: the only key in it

	acked   bool // to the device's broker
	stored  bool // in ingest
	chances int  // how often an owner was given it, or ingest
}

func (m *message) String() string {
	switch {
	case m.poison:
		return m.device + " poison"
	case m.patch != "":
		return m.device + " patch " + m.patch
	case len(m.numbers) == 0:
		return m.device + " status"
	}
	return fmt.Sprintf("%s %d+%d", m.device, m.numbers[0].seq, len(m.numbers))
}

// name is what no other message has: payloads of two devices may be the same.
func (m *message) name() string { return m.device + " " + m.payload }

// message finds the message that a device sent.
func (w *World) message(device, payload []byte) *message {
	return w.known[string(device)+" "+string(payload)]
}

// host is m as a door makes it.
func (m *message) host(at int64) host.Message {
	return host.Message{Kind: m.kind, Device: []byte(m.device), Payload: []byte(m.payload), Topic: "devices", ReceivedAt: at}
}

// newLoads makes devices and all that they will send.
func newLoads(rng *rand.Rand, c *climate, base int64) []*load {
	var all []*load
	id := uint64(0)
	for d := range c.devices {
		dev := &load{id: fmt.Sprintf("dev-%d", d), numbered: d > 0 || rng.IntN(2) == 0}
		dev.part = placement.Partition([]byte(dev.id), int32(c.partitions))
		seq, hot := uint64(0), false
		for range c.messages/2 + rng.IntN(c.messages) {
			id++
			m := &message{kind: host.Telemetry, device: dev.id, part: dev.part}
			dev.unsent = append(dev.unsent, m)
			switch r := rng.IntN(24); {
			case r == 0:
				m.poison, m.payload = true, fmt.Sprintf("{broken %d", id)
			case r < 3:
				m.kind, m.patch = host.Reported, fmt.Sprintf("k%d", id)
				m.payload = fmt.Sprintf(`{%q:%d}`, m.patch, id)
			case r == 3:
				m.kind, m.payload = host.Status, fmt.Sprintf(`{"online":%t,"boot":1,"session":%d}`, rng.IntN(2) == 0, id)
			default:
				seq = dev.samples(rng, c, m, seq, base, &hot)
			}
		}
		if c.laggards {
			dev.shuffle(rng)
		}
		all = append(all, dev)
	}
	return all
}

// samples makes m a message of some samples, and returns the number of the last.
func (d *load) samples(rng *rand.Rand, c *climate, m *message, seq uint64, base int64, hot *bool) uint64 {
	var samples []string
	for range 1 + rng.IntN(2) {
		if c.losses && d.numbered && rng.IntN(12) == 0 {
			seq++ // never sent
		}
		seq++
		if rng.IntN(4) == 0 {
			*hot = !*hot
		}
		t := 20 + rng.IntN(20)
		if *hot {
			t += 40
		}
		at := base + int64(seq)*int64(10*time.Millisecond)
		n := number{d.id, 0, seq}
		if d.numbered {
			n.boot = 1
			samples = append(samples, fmt.Sprintf(`{"seq":%d,"time":%d,"metrics":{"t":%d}}`, seq, at, t))
			d.sum.Add(&device.Sample{Boot: 1, Seq: seq, Time: at, Readings: []device.Reading{{Name: "t", Value: float64(t)}}})
		} else {
			samples = append(samples, fmt.Sprintf(`{"time":%d,"metrics":{"t":%d,"u":%d}}`, at, t, seq))
		}
		m.numbers = append(m.numbers, n)
	}
	boot := ""
	if d.numbered {
		boot = `"boot":1,`
	}
	m.payload = fmt.Sprintf(`{%s"samples":[%s]}`, boot, strings.Join(samples, ","))
	return seq
}

// shuffle has the device send some messages later than it should.
func (d *load) shuffle(rng *rand.Rand) {
	for i := range d.unsent {
		j := i + rng.IntN(4)
		if rng.IntN(8) == 0 {
			j = len(d.unsent) - 1
		}
		if rng.IntN(3) == 0 && j < len(d.unsent) {
			m := d.unsent[i]
			d.unsent = slices.Insert(slices.Delete(d.unsent, i, i+1), j, m)
		}
	}
}
