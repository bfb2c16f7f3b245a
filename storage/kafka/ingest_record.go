package kafka

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
)

// Headers of doppel.ingest. All may be missing: any Kafka producer may write here.
const (
	headerContentType = "content-type"
	headerReceivedAt  = "received-at" // RFC 3339; missing: the record's timestamp
	headerSource      = "source"      // who took the message: a node's id
	headerTopic       = "topic"       // as of MQTT: devices/pump-1/status; missing: telemetry
	headerBoot        = "boot"        // with seq, of a numbered patch of the reported state
	headerSeq         = "seq"
	headerAttempts    = "attempts" // how often it was a dead letter; missing: never
)

func (in *Ingest) headers(m *host.Message) []kgo.RecordHeader {
	hs := make([]kgo.RecordHeader, 0, 7)
	hs = append(hs,
		header(headerReceivedAt, timeText(m.ReceivedAt)),
		header(headerSource, in.c.cfg.ClientID),
		header(headerTopic, m.Topic+"/"+string(m.Device)+"/"+kindName(m.Kind)))
	if m.ContentType != "" {
		hs = append(hs, header(headerContentType, m.ContentType))
	}
	if m.Numbered {
		hs = append(hs,
			header(headerBoot, strconv.FormatUint(m.Boot, 10)),
			header(headerSeq, strconv.FormatUint(m.Seq, 10)))
	}
	if m.Attempts > 0 {
		hs = append(hs, header(headerAttempts, strconv.Itoa(int(m.Attempts))))
	}
	return hs
}

// record reads one of any producer's.
func (in *Ingest) record(r *kgo.Record) host.IngestRecord {
	if r.Attrs.IsControl() {
		return host.IngestRecord{Offset: r.Offset, Home: -1}
	}
	m := host.Message{
		Kind:       host.Telemetry,
		Device:     r.Key,
		Payload:    r.Value,
		ReceivedAt: r.Timestamp.UnixNano(),
		Topic:      in.topic,
	}
	var boot, seq []byte
	for _, h := range r.Headers {
		switch h.Key {
		case headerContentType:
			name, _, _ := bytes.Cut(h.Value, []byte(";"))
			m.ContentType = string(bytes.TrimSpace(name))
		case headerReceivedAt:
			if t, err := time.Parse(time.RFC3339Nano, string(h.Value)); err == nil && inNanos(t) {
				m.ReceivedAt = t.UnixNano()
			}
		case headerTopic:
			m.Topic, m.Kind = in.parseTopic(string(h.Value), r.Key)
		case headerBoot:
			boot = h.Value
		case headerSeq:
			seq = h.Value
		case headerAttempts:
			if n, err := strconv.ParseUint(string(h.Value), 10, 8); err == nil {
				m.Attempts = uint8(n)
			}
		}
	}
	if m.Kind == host.Reported {
		b, err1 := strconv.ParseUint(string(boot), 10, 64)
		s, err2 := strconv.ParseUint(string(seq), 10, 64)
		if err1 == nil && err2 == nil {
			m.Numbered, m.Boot, m.Seq = true, b, s
		}
	}
	home := int32(-1)
	if len(r.Key) > 0 {
		if h := placement.Partition(r.Key, in.c.cfg.Partitions); h != r.Partition {
			home = h
		}
	}
	return host.IngestRecord{Offset: r.Offset, Message: m, Home: home}
}

// inNanos says that t has a number of nanoseconds since 1970.
func inNanos(t time.Time) bool { return t.Year() >= 1970 && t.Year() < 2262 }

// parseTopic reads ROOT/DEVICE/KIND. Of another form only the last segment counts, and anything that
// names no kind is telemetry.
func (in *Ingest) parseTopic(topic string, device []byte) (root string, kind host.MessageKind) {
	rest, last := "", topic
	if i := strings.LastIndexByte(topic, '/'); i >= 0 {
		rest, last = topic[:i], topic[i+1:]
	}
	kind = host.Telemetry
	for _, k := range []host.MessageKind{host.Status, host.Reported} {
		if last == kindName(k) {
			kind = k
		}
	}
	root, ok := strings.CutSuffix(rest, "/"+string(device))
	if !ok || root == "" {
		return in.topic, kind
	}
	return root, kind
}

func kindName(k host.MessageKind) string {
	switch k {
	case host.Status:
		return "status"
	case host.Reported:
		return "reported"
	default:
		return "telemetry"
	}
}
