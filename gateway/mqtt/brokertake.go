package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/doppel-iot/doppel/actors/host"
)

// inbound is a message of a device to the embedded broker.
type inbound struct {
	topic       string
	device      []byte
	kind        host.MessageKind
	payload     []byte // mochi's, made for this packet alone and never written to
	contentType string
	user        []packets.UserProperty
	id          uint16
	qos         byte
}

// take delivers a message that came by p, or refuses it.
func (b *Broker) take(p *peer, in *inbound) {
	b.sink.count(in.kind)
	start := time.Now()
	one := b.ones.Get().(*[1]host.Message) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	defer func() {
		clear(one[:])
		b.ones.Put(one)
	}()
	m := &one[0]
	var letter *host.DeadLetter
	*m, letter = b.read(in, start)
	if !p.push(m, letter, in.id, in.qos, delivered) {
		return
	}
	if letter != nil {
		token := m.Token
		b.sink.refuse(p.ctx, letter, func(err error) { p.settle(token, err) })
		return
	}
	p.deliver(one[:])
	b.cfg.Observe.received(1, time.Since(start))
}

// takeWill delivers a last will. It never blocks long: it may come on the broker's only timer goroutine.
func (b *Broker) takeWill(in *inbound) {
	b.sink.count(in.kind)
	m, letter := b.read(in, time.Now())
	if letter != nil {
		b.stats.Refused.Add(1)
	}
	b.wills.push(&m, letter, 0, 0, waiting)
}

// read makes a message or a dead letter of what came in.
func (b *Broker) read(in *inbound, now time.Time) (host.Message, *host.DeadLetter) {
	boot, seq := patchProperties(in.user)
	m := host.Message{
		Kind: in.kind, Device: in.device, Payload: in.payload, ContentType: mediaType(in.contentType),
		ReceivedAt: now.UnixNano(), Topic: b.topics.root,
	}
	letter := objection(in.kind, in.device, len(in.payload), boot, seq)
	if letter != nil {
		letter.Device = string(in.device)
		letter.Payload = in.payload[:min(len(in.payload), maxKept)]
		letter.SourceTopic, letter.ContentType, letter.ReceivedAt = in.topic, m.ContentType, m.ReceivedAt
		return host.Message{ReceivedAt: m.ReceivedAt}, letter
	}
	if in.kind == host.Reported {
		m.Boot, m.Seq, m.Numbered, _ = patchNumber(boot, seq) // checked by objection
	}
	return m, nil
}

func patchProperties(user []packets.UserProperty) (boot, seq []byte) {
	for _, u := range user {
		switch u.Key {
		case "boot":
			boot = []byte(u.Val)
		case "seq":
			seq = []byte(u.Val)
		}
	}
	return boot, seq
}

// forward passes a device message on to ordinary subscribers, and retains it if asked: status always,
// the rest while anybody may want to see it.
func (b *Broker) forward(kind host.MessageKind, pk packets.Packet) {
	if kind != host.Status && !pk.FixedHeader.Retain && !b.watched.Load() {
		return
	}
	pk.PacketID = uint16(pk.FixedHeader.Qos) // any will do, it is nobody's
	pk.FixedHeader.Dup = false
	pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = 0, false // the device's
	if err := b.server.InjectPacket(b.self, pk); err != nil {
		b.log.WarnContext(b.work, "device message not passed on to subscribers", "topic", pk.TopicName, "error", err)
		return
	}
	b.stats.Forwarded.Add(1)
}

// recount finds out whether there is still a subscription that may match telemetry or reported.
func (b *Broker) recount() {
	for _, cl := range b.server.Clients.GetAll() {
		for filter := range cl.State.Subscriptions.GetAll() {
			if b.topics.watches(filter) {
				return
			}
		}
	}
	b.watched.Store(false)
}

// watches reports whether a topic filter can match telemetry or reported of some device.
func (t topics) watches(filter string) bool {
	if rest, ok := strings.CutPrefix(filter, "$share/"); ok {
		_, filter, _ = strings.Cut(rest, "/")
	}
	levels := strings.Split(filter, "/")
	want := append(strings.Split(t.root, "/"), "+", "")
	for i, level := range levels {
		if level == "#" {
			return true
		}
		if i >= len(want) {
			return false
		}
		last := i == len(want)-1
		switch {
		case level == "+" || want[i] == "+":
		case last && slices.Contains([]string{"telemetry", "reported"}, level):
		case !last && level == want[i]:
		default:
			return false
		}
	}
	return len(levels) == len(want)
}

// Publish implements [Publisher]. It returns when the broker has queued the message for all
// subscribers; whether they get it is between them and the broker.
func (b *Broker) Publish(_ context.Context, topic string, qos byte, retain bool, payload []byte, props *Properties) error {
	if !b.serving.Load() {
		return ErrNotConnected
	}
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Retain: retain},
		TopicName:   topic, Payload: payload, PacketID: uint16(qos),
	}
	if props != nil {
		pk.Properties = props.mochi()
	}
	if err := b.server.InjectPacket(b.self, pk); err != nil {
		return fmt.Errorf("publish %s: %w", topic, err)
	}
	return nil
}

func (p *Properties) mochi() packets.Properties {
	out := packets.Properties{
		ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData,
	}
	if p.Expiry > 0 {
		out.MessageExpiryInterval = p.expirySeconds()
	}
	for _, u := range p.User {
		out.User = append(out.User, packets.UserProperty{Key: u.Key, Val: u.Value})
	}
	return out
}

// quieter lowers mochi's log by one level: a device that disconnects is no warning.
type quieter struct{ slog.Handler }

func lowered(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled implements slog.Handler.
func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return q.Handler.Enabled(ctx, lowered(l))
}

// Handle implements slog.Handler.
func (q quieter) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lowered(r.Level)
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quieter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quieter{q.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (q quieter) WithGroup(name string) slog.Handler { return quieter{q.Handler.WithGroup(name)} }
