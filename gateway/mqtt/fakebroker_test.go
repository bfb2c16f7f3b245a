package mqtt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// fakeBroker answers CONNECT and SUBSCRIBE as told and then runs a script of its own.
type fakeBroker struct {
	net.Listener
	connack packets.Properties
	script  func(c net.Conn, r *bufio.Reader, receiveMaximum int) error
	mu      sync.Mutex
	errs    []error
}

func (f *fakeBroker) serve() {
	for {
		c, err := f.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if err := f.handle(c); err != nil {
				f.mu.Lock()
				f.errs = append(f.errs, err)
				f.mu.Unlock()
			}
		}()
	}
}

func (f *fakeBroker) handle(c net.Conn) error {
	r := bufio.NewReaderSize(c, 64<<10)
	rm := 65535
	for {
		p, err := packets.ReadPacket(r)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		switch p := p.Content.(type) {
		case *packets.Connect:
			if p.Properties.ReceiveMaximum != nil {
				rm = int(*p.Properties.ReceiveMaximum)
			}
			props := f.connack
			if _, err := (&packets.Connack{Properties: &props}).WriteTo(c); err != nil {
				return err
			}
		case *packets.Subscribe:
			reasons := make([]byte, len(p.Subscriptions))
			for i := range reasons {
				reasons[i] = 1
			}
			if _, err := (&packets.Suback{PacketID: p.PacketID, Reasons: reasons, Properties: &packets.Properties{}}).WriteTo(c); err != nil {
				return err
			}
			if f.script != nil {
				return f.script(c, r, rm)
			}
		case *packets.Disconnect:
			return nil
		}
	}
}

func startFakeBroker(t testing.TB, f *fakeBroker) *fakeBroker {
	t.Helper()
	if f.Listener == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f.Listener = l
	}
	go f.serve()
	t.Cleanup(func() {
		f.Close()
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, err := range f.errs {
			t.Errorf("fake broker: %v", err)
		}
	})
	return f
}

// firehose sends QoS 1 telemetry of 1,000 devices as fast as the window allows, and checks that the
// acknowledgements come in order.
func firehose(c net.Conn, r *bufio.Reader, rm int) error {
	const frames = 1000
	payload := strings.Repeat("x", 100)
	var one []byte
	var sent [frames][]byte
	for i := range sent {
		topic := fmt.Sprintf("devices/device-%06d/telemetry", i)
		one = binary.BigEndian.AppendUint16(nil, uint16(len(topic)))
		one = append(one, topic...)
		one = append(one, 0, 0, 0) // packet identifier, no properties
		one = append(one, payload...)
		sent[i] = append(binary.AppendUvarint([]byte{0x32}, uint64(len(one))), one...)
	}
	var acked atomic.Uint64
	room := make(chan struct{}, 1)
	gone := make(chan error, 1)
	go func() {
		var b [pubackLen]byte
		for n := uint64(0); ; n++ {
			if _, err := io.ReadFull(r, b[:]); err != nil {
				gone <- nil
				return
			}
			if b[0]&typeMask == 0xE0 || b[0]&typeMask == 0xC0 { // DISCONNECT, PINGREQ: the end is near enough
				gone <- nil
				return
			}
			if want := uint16(n%65535) + 1; b[0] != typePuback || binary.BigEndian.Uint16(b[2:]) != want {
				gone <- fmt.Errorf("acknowledgement %d is % X, want id %d", n, b, want)
				return
			}
			acked.Store(n + 1)
			if r.Buffered() < pubackLen {
				wake(room)
			}
		}
	}()
	buf := make([]byte, 0, 64<<10)
	for n := uint64(0); ; {
		free := rm - int(n-acked.Load())
		if free == 0 {
			select {
			case err := <-gone:
				return err
			case <-room:
			}
			continue
		}
		buf = buf[:0]
		for ; free > 0 && len(buf) < 60<<10; free-- {
			f := sent[n%frames]
			at := len(buf) + len(f) - len(payload) - 3
			buf = append(buf, f...)
			binary.BigEndian.PutUint16(buf[at:], uint16(n%65535)+1)
			n++
		}
		if _, err := c.Write(buf); err != nil {
			select {
			case err := <-gone:
				return err
			default:
				return nil
			}
		}
	}
}

// firehoseEnv makes the test binary a firehose broker in a process of its own.
const firehoseEnv = "DOPPEL_TEST_FIREHOSE"

func firehoseMain() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1
	}
	f := &fakeBroker{Listener: l, script: firehose}
	go f.serve()
	_, _ = fmt.Fprintln(os.Stdout, l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent goes
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.errs...); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func startFirehose(b *testing.B) (addr string) {
	b.Helper()
	if _, err := fmt.Fscanln(startProcess(b, firehoseEnv+"=1"), &addr); err != nil {
		b.Fatal(err)
	}
	return addr
}

// startProcess runs this binary with a variable set, until the benchmark ends.
func startProcess(b *testing.B, env ...string) (out io.Reader) {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("%s: %v", env, err)
		}
	})
	return out
}

// publisherEnv makes the test binary a fleet of devices in a process of its own: its value is the
// address of the broker.
const publisherEnv = "DOPPEL_TEST_PUBLISHER"

// paceEnv, if set, is how long each of them waits between two windows.
const paceEnv = "DOPPEL_TEST_PACE"

// publisherMain publishes QoS 1 telemetry over connections with a window each, until stdin ends.
func publisherMain(addr string) int {
	const conns, window = 100, 32
	pace, _ := time.ParseDuration(os.Getenv(paceEnv)) // not set: none
	var wg sync.WaitGroup
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return 1
		}
		wg.Go(func() { publishFrames(c, fmt.Sprintf("device-%06d", i), window, pace) })
		defer c.Close()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func publishFrames(c net.Conn, name string, window int, pace time.Duration) {
	r := bufio.NewReader(c)
	_, _ = (&packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: name, CleanStart: true, Properties: &packets.Properties{}}).WriteTo(c)
	if _, err := packets.ReadPacket(r); err != nil {
		return
	}
	var frames []byte
	for id := range window {
		topic := "devices/" + name + "/telemetry"
		body := binary.BigEndian.AppendUint16(nil, uint16(len(topic)))
		body = append(body, topic...)
		body = append(body, 0, byte(id+1), 0)
		body = append(body, strings.Repeat("x", 100)...)
		frames = append(binary.AppendUvarint(append(frames, 0x32), uint64(len(body))), body...)
	}
	one := len(frames) / window
	for free := window; ; {
		if _, err := c.Write(frames[:free*one]); err != nil {
			return
		}
		if _, err := r.Peek(pubackLen); err != nil {
			return
		}
		if pace > 0 {
			time.Sleep(pace)
		}
		free = r.Buffered() / pubackLen
		_, _ = r.Discard(free * pubackLen)
	}
}
