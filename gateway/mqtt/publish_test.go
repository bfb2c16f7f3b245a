package mqtt

import (
	"bytes"
	"errors"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// view is what both decoders know of a PUBLISH.
type view struct {
	Topic, Payload, ContentType string
	ID                          uint16
	QoS                         byte
	Retain, Dup                 bool
	Boot, Seq                   string
}

func (p *publish) view() view {
	return view{
		string(p.topic), string(p.payload), string(p.contentType), p.id, p.qos, p.retain, p.dup, string(p.boot), string(p.seq),
	}
}

func pahoView(p *packets.Publish) view {
	v := view{Topic: p.Topic, Payload: string(p.Payload), ContentType: p.Properties.ContentType, ID: p.PacketID, QoS: p.QoS, Retain: p.Retain, Dup: p.Duplicate}
	for _, u := range p.Properties.User {
		switch u.Key {
		case "boot":
			v.Boot = u.Value
		case "seq":
			v.Seq = u.Value
		}
	}
	return v
}

// decodeFrame decodes one whole packet as conn does.
func decodeFrame(b []byte) (publish, error) {
	var p publish
	if len(b) < 2 || b[0]&typeMask != typePublish {
		return p, errMalformed
	}
	n, body, ok := cutVarint(b[1:])
	if !ok || n != len(body) {
		return p, errMalformed
	}
	return p, p.decode(b[0], body)
}

func randomPublish(t *rapid.T) *packets.Publish {
	p := &packets.Publish{
		Topic:     rapid.StringMatching(`[a-z0-9/]{1,20}`).Draw(t, "topic"),
		Payload:   rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload"),
		QoS:       byte(rapid.IntRange(0, 2).Draw(t, "qos")),
		Retain:    rapid.Bool().Draw(t, "retain"),
		Duplicate: rapid.Bool().Draw(t, "dup"),
	}
	if p.QoS > 0 {
		p.PacketID = rapid.Uint16Range(1, 65535).Draw(t, "id")
	}
	props := &packets.Properties{}
	if rapid.Bool().Draw(t, "props") {
		props.ContentType = rapid.StringMatching(`[a-z/]{0,20}`).Draw(t, "content type")
		props.ResponseTopic = rapid.StringMatching(`[a-z]{0,5}`).Draw(t, "response topic")
		props.CorrelationData = rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "correlation")
		if rapid.Bool().Draw(t, "expiry") {
			e := rapid.Uint32().Draw(t, "seconds")
			props.MessageExpiry = &e
		}
		if rapid.Bool().Draw(t, "format") {
			one := byte(1)
			props.PayloadFormat = &one
		}
		if rapid.Bool().Draw(t, "subscription") {
			id := rapid.IntRange(1, 268_435_455).Draw(t, "subscription id")
			props.SubscriptionIdentifier = &id
		}
		for range rapid.IntRange(0, 4).Draw(t, "user properties") {
			props.User = append(props.User, packets.User{
				Key:   rapid.SampledFrom([]string{"boot", "seq", "other", ""}).Draw(t, "key"),
				Value: rapid.StringMatching(`[0-9a-z]{0,6}`).Draw(t, "value"),
			})
		}
	}
	p.Properties = props
	return p
}

func TestPublishAgreesWithPaho(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := randomPublish(t)
		var b bytes.Buffer
		if _, err := p.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		got, err := decodeFrame(b.Bytes())
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		if diff := cmp.Diff(pahoView(p), got.view()); diff != "" {
			t.Fatalf("decoded (-want +got):\n%s", diff)
		}
		for cut := range b.Len() { // no prefix is a packet, and none may panic
			if _, err := decodeFrame(b.Bytes()[:cut]); err == nil {
				t.Fatalf("the first %d of %d bytes were taken for a packet", cut, b.Len())
			}
		}
	})
}

func FuzzPublish(f *testing.F) {
	f.Add([]byte("\x32\x0c\x00\x03a/b\x00\x01\x00data"))
	f.Add([]byte("\x33\x13\x00\x03a/b\x00\x01\x08\x03\x00\x05a/b;cx"))
	f.Add([]byte("\x30\x0d\x00\x00\x09\x23\x00\x01\x26\x00\x01k\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeFrame(b)
		if err != nil {
			return
		}
		p, pahoErr := packets.ReadPacket(bytes.NewReader(b))
		if pahoErr != nil {
			t.Fatalf("taken as %+v, paho says %v", got.view(), pahoErr)
		}
		if diff := cmp.Diff(pahoView(p.Content.(*packets.Publish)), got.view()); diff != "" {
			t.Fatalf("decoded (-paho +got):\n%s", diff)
		}
	})
}

func TestPublishRefusesAliases(t *testing.T) {
	alias := uint16(1)
	for name, p := range map[string]*packets.Publish{
		"alias with topic":   {Topic: "t", Properties: &packets.Properties{TopicAlias: &alias}},
		"alias in its place": {Properties: &packets.Properties{TopicAlias: &alias}},
		"no topic at all":    {Properties: &packets.Properties{}},
	} {
		var b bytes.Buffer
		if _, err := p.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := decodeFrame(b.Bytes()); !errors.Is(err, errTopicAlias) {
			t.Errorf("%s: %v, want %v", name, err, errTopicAlias)
		}
	}
}

func TestPatchNumber(t *testing.T) {
	for _, c := range []struct {
		boot, seq         string
		wantBoot, wantSeq uint64
		numbered          bool
		wantErr           string
	}{
		{"3", "118", 3, 118, true, ""},
		{"-", "1", 0, 1, true, ""}, // boot absent
		{"3", "-", 0, 0, false, ""},
		{"9223372036854775807", "9223372036854775807", 1<<63 - 1, 1<<63 - 1, true, ""},
		{"0", "9223372036854775808", 0, 0, false, `user property seq: "9223372036854775808" is no integer from 0 to 2^63-1`},
		{"x", "1", 0, 0, false, `user property boot: "x" is no integer from 0 to 2^63-1`},
		{"0", "0", 0, 0, false, "user property seq: 0, numbers start at 1"},
		{"0", "", 0, 0, false, `user property seq: "" is no integer from 0 to 2^63-1`},
	} {
		boot, seq, numbered, err := patchNumber(property(c.boot), property(c.seq))
		text := ""
		if err != nil {
			text = err.Error()
		}
		if boot != c.wantBoot || seq != c.wantSeq || numbered != c.numbered || text != c.wantErr {
			t.Errorf("boot %q seq %q: %d %d %v %q, want %d %d %v %q", c.boot, c.seq, boot, seq, numbered, text, c.wantBoot, c.wantSeq, c.numbered, c.wantErr)
		}
	}
}

// property makes "-" an absent one.
func property(s string) []byte {
	if s == "-" {
		return nil
	}
	return []byte(s)
}

func TestContentType(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "application/json": "application/json", "application/msgpack ; a=b": "application/msgpack",
		"text/plain;charset=utf-8": "text/plain", " application/x-protobuf": "application/x-protobuf", ";": "",
	} {
		if got := contentType([]byte(in)); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
