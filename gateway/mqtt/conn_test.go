package mqtt

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/host"
)

// TestConnSplitsTheStream: whatever arrives in whatever pieces, device messages come to the inlet in
// order and paho reads exactly the other packets.
func TestConnSplitsTheStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream, rest bytes.Buffer
		var want []string
		var wantDead int
		for i := range rapid.IntRange(1, 40).Draw(t, "packets") {
			var b bytes.Buffer
			payload := fmt.Sprintf("%d:", i)
			switch rapid.SampledFrom([]string{"telemetry", "telemetry", "telemetry", "large", "too large", "huge or not", "suback", "pingresp", "foreign"}).Draw(t, "packet") {
			case "telemetry":
				payload += strings.Repeat("x", rapid.IntRange(0, 3000).Draw(t, "size"))
				writePublish(&b, "devices/a/telemetry", payload, i)
				want = append(want, payload)
			case "large":
				payload += strings.Repeat("x", maxPayload-len(payload))
				writePublish(&b, "devices/a/telemetry", payload, i)
				want = append(want, payload)
			case "too large":
				writePublish(&b, "devices/a/telemetry", payload+strings.Repeat("x", maxPayload), i)
				wantDead++
			case "huge or not":
				if i%4 != 0 {
					continue
				}
				writePublish(&b, "devices/a/telemetry", payload+strings.Repeat("x", rapid.IntRange(readBuffer, 2<<20).Draw(t, "huge size")), i)
				wantDead++
			case "suback":
				_, _ = (&packets.Suback{PacketID: uint16(i), Reasons: make([]byte, 200), Properties: &packets.Properties{}}).WriteTo(&b)
				rest.Write(b.Bytes())
			case "pingresp":
				_, _ = packets.NewControlPacket(packets.PINGRESP).WriteTo(&b)
				rest.Write(b.Bytes())
			case "foreign":
				writePublish(&b, "elsewhere/a/telemetry", payload, i)
				rest.Write(b.Bytes())
			}
			stream.Write(b.Bytes())
		}
		o := newOwner(releaseAll)
		stats := &Stats{}
		topics := newTopics("devices")
		in := &intake{
			sink: &sink{
				inlet: o, refuser: o, topics: topics, stats: stats, log: slog.New(slog.DiscardHandler),
				reject: newRejects(nil, topics, stats),
			},
			ledger: newLedger(1000, defaultHeldBytes, stats, Observer{}),
		}
		pieces := &pieces{data: stream.Bytes(), size: rapid.IntRange(1, 40_000).Draw(t, "piece")}
		c := newConn(context.Background(), pieces, in)
		in.ledger.reset(c)
		got, err := io.ReadAll(c)
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		if !bytes.Equal(got, rest.Bytes()) {
			t.Fatalf("paho got %d bytes, want %d", len(got), rest.Len())
		}
		have := payloads(o.received())
		if len(have) != len(want) {
			t.Fatalf("%d messages, want %d", len(have), len(want))
		}
		for i := range want {
			if have[i] != want[i] {
				t.Fatalf("message %d is %.20q of %d bytes, want %.20q of %d", i, have[i], len(have[i]), want[i], len(want[i]))
			}
		}
		if len(o.dead()) != wantDead {
			t.Fatalf("%d dead letters, want %d", len(o.dead()), wantDead)
		}
		_ = c.Close()
	})
}

func writePublish(b *bytes.Buffer, topic, payload string, i int) {
	p := &packets.Publish{Topic: topic, Payload: []byte(payload), QoS: byte(i % 2), Properties: &packets.Properties{ContentType: "a/b"}}
	if p.QoS > 0 {
		p.PacketID = uint16(i + 1)
	}
	_, _ = p.WriteTo(b)
}

// pieces is a network connection that yields its data a piece at a time.
type pieces struct {
	net.Conn
	data []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.data)
	p.data = p.data[n:]
	return n, nil
}

func (p *pieces) Write(b []byte) (int, error) { return len(b), nil }

func (p *pieces) Close() error { return nil }

func TestParseURLs(t *testing.T) {
	urls, err := parseURLs([]string{"broker:1883", "mqtts://user:secret@broker", "tcp://[::1]:99"})
	if err != nil {
		t.Fatal(err)
	}
	if got := hostPort(urls[1], "8883"); got != "broker:8883" {
		t.Errorf("default port: %s", got)
	}
	if urls[0].Scheme != "mqtt" || urls[2].Host != "[::1]:99" {
		t.Errorf("parsed %v", urls)
	}
	for _, bad := range []string{"", "ws://broker:80", "mqtt://", "mqtt://broker:port"} {
		if _, err := parseURLs([]string{bad}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := parseURLs([]string{"ws://user:secret@broker"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error tells the password: %v", err)
	}
}

// TestClientOverTLS runs the tap, the acknowledgements and paho's own packets over one TLS connection
// to a real broker at once: their writes must not mix.
func TestClientOverTLS(t *testing.T) {
	pool, cert, key := certificate(t)
	m := startMosquitto(t, recommended+fmt.Sprintf("certfile %s\nkeyfile %s\n", cert, key))
	o := newOwner(releaseAll)
	c, _ := startClient(t, m.addr, o, func(cfg *Config) {
		cfg.URLs = []string{"mqtts://" + m.addr}
		cfg.TLS = func() *tls.Config { return &tls.Config{RootCAs: pool} }
		cfg.KeepAlive = time.Second
	})
	const n = 2000
	for i := range n {
		topic := "devices/a/telemetry"
		if err := c.Publish(t.Context(), topic, 1, false, []byte(strconv.Itoa(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all acknowledged", func() bool { return c.Stats().Acked.Load() == n })
	if got := o.received()[n-1]; string(got.Payload) != strconv.Itoa(n-1) || got.Kind != host.Telemetry {
		t.Errorf("last message is %s", got.Payload)
	}
	if got := c.Stats().Connects.Load(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
}

func certificate(t *testing.T) (pool *x509.CertPool, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, data := range map[string][]byte{
		certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pool, certFile, keyFile
}
