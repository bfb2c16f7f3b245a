package fault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// lan is a network of our own: a TUN device for each network namespace, and in this process the switch
// between them, which loses and delays packets by pair and direction. It needs the right to make devices
// and namespaces, and nothing else of the kernel: many have no netem, and tc could not tell pairs apart
// without classifiers that some have not.
//
// One goroutine reads each device. What is delayed waits in the path's queue, which is bounded: what does
// not fit is lost, as everything on a network may be.
type lan struct {
	addresses map[Subject]netip.Addr
	paths     map[[2]netip.Addr]*path
	ports     []*port
	reading   sync.WaitGroup
	sending   sync.WaitGroup
}

// port is one device.
type port struct {
	*os.File

	name string
}

// path is what one address sends to another.
type path struct {
	to    *port
	now   atomic.Pointer[disturbance]
	queue chan delayed

	// random belongs to the goroutine that reads the sender's device.
	random *rand.Rand
}

// delayed is a packet that waits.
type delayed struct {
	at     time.Time
	packet []byte
}

const (
	// lanMTU is large: the cost of a packet is ours, and hardly depends on its size.
	lanMTU   = 65000
	lanQueue = 4096
)

// openPort makes a TUN device of this name in the namespace of this process.
func openPort(name string) (*port, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make device %s: %w", name, err)
	}
	return &port{File: os.NewFile(uintptr(fd), name), name: name}, nil
}

// connect adds a party: the device its packets come from and go to, and its address.
func (l *lan) connect(s Subject, addr netip.Addr, p *port) {
	if l.addresses == nil {
		l.addresses = make(map[Subject]netip.Addr)
	}
	l.addresses[s] = addr
	if !slices.Contains(l.ports, p) {
		l.ports = append(l.ports, p)
	}
}

// run begins to switch between the ports, given which of them each party is at. seed is that of what is
// lost.
func (l *lan) run(at map[Subject]*port, seed uint64) {
	l.paths = make(map[[2]netip.Addr]*path)
	for a, from := range l.addresses {
		for b, to := range l.addresses {
			if at[a] == at[b] {
				continue // the kernel's own business
			}
			p := &path{to: at[b], queue: make(chan delayed, lanQueue), random: rand.New(rand.NewPCG(seed, binary.BigEndian.Uint64(append(from.AsSlice(), to.AsSlice()...))))}
			p.now.Store(&disturbance{})
			l.paths[[2]netip.Addr{from, to}] = p
			l.sending.Go(p.send)
		}
	}
	for _, p := range l.ports {
		l.reading.Go(func() { l.read(p) })
	}
}

// read switches what comes out of a device until it is closed.
func (l *lan) read(from *port) {
	buf := make([]byte, lanMTU+64)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil || n < 20 || buf[0]>>4 != 4 {
			continue // not IPv4: the kernel looking for neighbours
		}
		pair := [2]netip.Addr{netip.AddrFrom4([4]byte(buf[12:16])), netip.AddrFrom4([4]byte(buf[16:20]))}
		if p := l.paths[pair]; p != nil {
			p.carry(buf[:n])
		}
	}
}

// carry passes a packet on, if it is to arrive.
func (p *path) carry(packet []byte) {
	d := p.now.Load()
	if d.loss > 0 && p.random.Float64() < d.loss {
		return
	}
	if d.delay == 0 && len(p.queue) == 0 {
		_, _ = p.to.Write(packet) // a device that is down loses it
		return
	}
	select {
	case p.queue <- delayed{time.Now().Add(d.delay), append([]byte(nil), packet...)}:
	default:
	}
}

// send empties the queue until it is closed.
func (p *path) send() {
	for d := range p.queue {
		time.Sleep(time.Until(d.at))
		_, _ = p.to.Write(d.packet)
	}
}

// disturb implements wiring.
func (l *lan) disturb(from, to Subject, d disturbance) {
	l.paths[[2]netip.Addr{l.addresses[from], l.addresses[to]}].now.Store(&d)
}

// close ends the switch; its devices vanish.
func (l *lan) close() {
	for _, p := range l.ports {
		_ = p.Close()
	}
	l.reading.Wait()
	for _, p := range l.paths {
		close(p.queue)
	}
	l.sending.Wait()
}
