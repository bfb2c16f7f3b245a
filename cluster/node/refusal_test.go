package node_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/device"
)

// at is the time of a device's first sample; the others follow a second apart.
const at = 1795341600_000000000

// refusal is a message that must not reach a twin.
type refusal struct {
	name        string
	before      []string // telemetry that makes the twin ready for it, besides number 1
	level       string   // of the topic; empty: telemetry
	contentType string
	user        []paho.UserProperty
	payload     string
	numbered    bool // it says that it is number 2 of boot 7, and is refused under it
	atDoor      bool // refused before there is a twin: in the accounts of the node, not of the twin
	reason      string
	detail      string
}

func many(n int, format string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(all, ",")
}

func wire(t *doppelv1.Telemetry) string {
	b, err := proto.Marshal(t)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// refusals are the reasons that a single message can give, with what makes each one.
func refusals() []refusal {
	const good = `"metrics":{"a":1}}`
	ahead := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	return []refusal{
		{
			name: "not json", payload: `{"boot":7,"metrics":{"a":`, reason: "not_decodable",
			detail: "not JSON: byte 25: expected a value, got the end",
		},
		{
			name: "not protobuf", contentType: "application/x-protobuf", payload: "\x22\x7f", reason: "not_decodable",
			detail: "not a protobuf message doppel.v1.Telemetry",
		},
		{
			name: "not msgpack", contentType: "application/msgpack", payload: "\x81\xa7metrics", reason: "not_decodable",
			detail: "not MessagePack",
		},
		{
			name: "status", level: "status", payload: `{"online":"yes"}`, reason: "not_decodable",
			detail: "online: expected",
		},
		{
			name: "reported", level: "reported", payload: `[1]`, reason: "not_decodable",
			detail: "a message is a JSON object, got an array",
		},
		{
			name: "content type", contentType: "text/csv", payload: "21.5", reason: "content_type",
			detail: `content type "text/csv" is not known; application/json, application/x-protobuf and application/msgpack are taken`,
		},
		{
			name: "one byte too many", payload: `{` + strings.Repeat(" ", 64<<10-len(good)) + good, reason: "too_large", atDoor: true,
			detail: "payload has 65537 bytes, at most 65536 are allowed",
		},
		{
			name: "1001 samples", payload: `{"boot":7,"samples":[` + many(1001, `{"metrics":{"a":%d}}`) + `]}`, reason: "too_many_samples",
			detail: "samples: more than 1000 in a message",
		},
		{
			name: "65 metrics", payload: `{"boot":7,"seq":2,"metrics":{` + many(65, `"m%d":1`) + `}}`, numbered: true, reason: "too_many_metrics",
			detail: "metrics: ",
		},
		{
			name: "the twin's 65th metric", before: []string{`{"metrics":{` + many(63, `"m%d":1`) + `}}`},
			payload: `{"boot":7,"seq":2,"metrics":{"b":1}}`, numbered: true, reason: "too_many_metrics",
			detail: "metrics: 1 new names on top of 64, a twin has at most 64: send fewer, or reset the twin",
		},
		{
			name: "metric name", payload: `{"boot":7,"seq":2,"metrics":{"a-b":1}}`, numbered: true, reason: "metric_name",
			detail: `metrics: "a-b" is not a name: a letter or _, then up to 63 letters, digits or _`,
		},
		{
			name: "not finite", contentType: "application/x-protobuf", numbered: true, reason: "not_finite",
			payload: wire(&doppelv1.Telemetry{Boot: proto.Uint64(7), Seq: proto.Uint64(2), Metrics: map[string]float64{"a": math.Inf(1)}}),
			detail:  "metrics.a: +Inf is not a finite number",
		},
		{
			name: "nothing", payload: ``, reason: "no_content",
			detail: "the payload is empty",
		},
		{
			name: "sample without content", payload: `{"boot":7,"seq":2}`, numbered: true, reason: "no_content",
			detail: "the sample: neither metrics nor reported",
		},
		{
			name: "number range", payload: `{"boot":7,"seq":9223372036854775808,` + good, reason: "number_range",
			detail: "seq: 9223372036854775808",
		},
		{
			name: "number of a patch", level: "reported", payload: `{"firmware":"1"}`, reason: "number_range",
			user: []paho.UserProperty{{Key: "boot", Value: "7"}, {Key: "seq", Value: "minus"}}, atDoor: true,
			detail: `user property seq: "minus" is no integer from 0 to 2^63-1`,
		},
		{
			name: "time unit", payload: `{"boot":7,"seq":2,"time":1795341600000,` + good, numbered: true, reason: "time_unit",
			detail: "time: 1795341600000 looks like milliseconds",
		},
		{
			name: "time too old", payload: `{"boot":7,"seq":2,"time":"1999-12-31T23:59:59Z",` + good, numbered: true, reason: "time_too_old",
			detail: "time: 1999-12-31T23:59:59Z is before the year 2000",
		},
		{
			name: "time in future", payload: `{"boot":7,"seq":2,"time":"` + ahead.Format(time.RFC3339) + `",` + good, numbered: true, reason: "time_in_future",
			detail: "time: " + ahead.Format(time.RFC3339) + " is more than 10 minutes ahead of the receive time ",
		},
		{
			name: "stale boot", payload: `{"boot":5,"seq":1,` + good, reason: "stale_boot",
			detail: "boot 5",
		},
	}
}

func setups(t *testing.T, run func(t *testing.T, cfg node.Config)) {
	t.Helper()
	for name, configure := range map[string]func(testing.TB) node.Config{"embedded": nodetest.Embedded, "real": nodetest.Real} {
		t.Run(name, func(t *testing.T) { run(t, configure(t)) })
	}
}

// TestRefusals: what cannot be taken is acknowledged, kept with its bytes and a precise reason, counted,
// and told to the device, and the twin goes on as if it had not come.
func TestRefusals(t *testing.T) {
	setups(t, func(t *testing.T, cfg node.Config) {
		n := nodetest.Start(t, cfg)
		letters := n.Letters()
		var untold []func() bool
		for _, r := range refusals() {
			t.Run(r.name, func(t *testing.T) { untold = append(untold, refuse(t, n, letters, &r)) })
		}
		if !nodetest.Poll(func() bool { return all(untold) }) {
			t.Error("not every device was told of its refusal")
		}
		balanced(t, n)
	})
}

func all(fs []func() bool) bool {
	for _, f := range fs {
		if !f() {
			return false
		}
	}
	return true
}

// refuse sends r between good samples of a fresh device. What it returns reports whether the device was
// told; as devices are told at most once a second, and some share that limit, it sends r again if need be.
func refuse(t *testing.T, n *nodetest.Node, letters *nodetest.Letters, r *refusal) (told func() bool) {
	t.Helper()
	d := n.Device(nodetest.Unique("refused"))
	good := &history{metrics: map[string]float64{}}
	for _, text := range []string{`{"boot":6,"seq":1,"time":%d,"metrics":{"a":0.5}}`, `{"boot":7,"seq":1,"time":%d,"metrics":{"a":1.5}}`} {
		good.send(d, text)
	}
	for _, text := range r.before {
		d.Telemetry(text)
	}
	wasThere := good.chain.Samples + uint64(len(r.before))
	before := n.Await(d.ID, "ready", func(twin *doppelv1.Twin) bool { return twin.GetCounters().GetApplied() == wasThere })
	was := n.Metrics()

	level := r.level
	if level == "" {
		level = "telemetry"
	}
	bad := func() *paho.Publish {
		p := &paho.Publish{Topic: d.Topic(level), Payload: []byte(r.payload), Properties: &paho.PublishProperties{ContentType: r.contentType}}
		p.Properties.User = r.user
		return p
	}
	sent := time.Now()
	d.Send(bad())

	letter := r.letter(t, n, letters, d, sent)
	counted(t, n, was, r.reason)
	undisturbed(t, n, d, before, good, r)
	return r.told(t, d, bad, letter["detail"])
}

// letter is the headers of the one dead letter of d.
func (r *refusal) letter(t *testing.T, n *nodetest.Node, letters *nodetest.Letters, d *nodetest.Device, sent time.Time) map[string]string {
	t.Helper()
	if !nodetest.Poll(func() bool { return len(letters.Of(d.ID)) > 0 }) {
		t.Fatal("no dead letter")
	}
	all := letters.Of(d.ID)
	if len(all) != 1 {
		t.Errorf("%d dead letters, want 1", len(all))
	}
	if got := string(all[0].Value); got != r.payload {
		t.Errorf("the dead letter's bytes are not the message's: %.200q", got)
	}
	h := nodetest.Headers(all[0])
	if !strings.HasPrefix(h["detail"], r.detail) {
		t.Errorf("detail %q, want %q", h["detail"], r.detail)
	}
	received, err := time.Parse(time.RFC3339Nano, h["received-at"])
	if err != nil || received.Before(sent.Add(-time.Second)) || received.After(time.Now().Add(time.Second)) {
		t.Errorf("received-at %q, want a time since %v (%v)", h["received-at"], sent, err)
	}
	level := r.level
	if level == "" {
		level = "telemetry"
	}
	want := map[string]string{
		"reason": r.reason, "source-topic": d.Topic(level), "content-type": r.contentType, "node": n.Config.NodeID, "attempts": "0",
	}
	if diff := cmp.Diff(want, h, cmpopts.IgnoreMapEntries(func(k, _ string) bool { return k == "detail" || k == "received-at" })); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	return h
}

// counted checks what one refused message adds to the accounts: the letter is there a moment earlier.
func counted(t *testing.T, n *nodetest.Node, was nodetest.Metrics, reason string) {
	t.Helper()
	var now nodetest.Metrics
	if !nodetest.Poll(func() bool {
		now = n.Metrics()
		return now["doppel_samples_in_flight"] == 0 && now["doppel_samples_received_total"] > was["doppel_samples_received_total"]
	}) {
		t.Error("the refused message stays in flight")
	}
	letters := map[string]float64{}
	for r, count := range now.Letters() {
		if diff := count - was.Letters()[r]; diff != 0 {
			letters[r] = diff
		}
	}
	if diff := cmp.Diff(map[string]float64{reason: 1}, letters); diff != "" {
		t.Errorf("doppel_dead_letters_total (-want +got):\n%s", diff)
	}
	for name, want := range map[string]float64{
		`doppel_samples_total{result="dead_lettered"}`: 1, `doppel_samples_received_total`: 1,
		`doppel_samples_total{result="applied"}`: 0, `doppel_samples_total{result="late"}`: 0, `doppel_samples_held`: 0,
	} {
		if got := now[name] - was[name]; got != want {
			t.Errorf("%s: grew by %v, want %v", name, got, want)
		}
	}
}

// undisturbed sends one more good sample and compares the twin with one that got only good ones.
func undisturbed(t *testing.T, n *nodetest.Node, d *nodetest.Device, before *doppelv1.Twin, good *history, r *refusal) {
	t.Helper()
	next, refused := 2, uint64(1)
	if r.numbered { // it has taken the place of its number
		next = 3
	}
	if r.atDoor {
		refused = 0
	}
	good.send(d, fmt.Sprintf(`{"boot":7,"seq":%d,"time":%%d,"metrics":{"a":2.5}}`, next))
	twin := n.Await(d.ID, "going on", func(twin *doppelv1.Twin) bool {
		return twin.GetCounters().GetApplied() > before.GetCounters().GetApplied()
	})
	c := twin.GetCounters()
	if c.GetApplied() != before.GetCounters().GetApplied()+1 || c.GetLate() != 0 || c.GetDuplicate() != 0 || c.GetHeld() != 0 ||
		c.GetGaps() != 0 || c.GetDeadLettered() != refused || c.GetMissing() != 0 {
		t.Errorf("counters %v, want one more applied, %d dead-lettered and nothing else", c, refused)
	}
	if twin.GetBoot() != 7 || twin.GetSeq() != uint64(next) {
		t.Errorf("twin is at boot %d, seq %d, want 7, %d", twin.GetBoot(), twin.GetSeq(), next)
	}
	if len(r.before) == 0 && twin.GetDigest() != good.chain.Digest {
		t.Errorf("digest %016x, want %016x: not the good samples and nothing else", twin.GetDigest(), good.chain.Digest)
	}
	if len(twin.GetMetrics()) != len(before.GetMetrics()) || twin.GetMetrics()["a"].GetValue() != 2.5 {
		t.Errorf("metrics %v, want those there were, a = 2.5", twin.GetMetrics())
	}
	if !twin.GetOnline() || twin.GetQuarantined() || len(twin.GetReported().GetFields()) != 0 {
		t.Errorf("twin changed otherwise: %v", twin)
	}
	if r.numbered { // so that it can come again corrected
		d.Telemetry(fmt.Sprintf(`{"boot":7,"seq":2,"time":%d,"metrics":{"a":9}}`, int64(at)))
		twin := n.Await(d.ID, "late", func(twin *doppelv1.Twin) bool { return twin.GetCounters().GetLate() == 1 })
		if twin.GetMetrics()["a"].GetValue() != 2.5 || twin.GetCounters().GetMissing() != 0 {
			t.Errorf("the corrected sample changed more than the count of late ones: %v", twin)
		}
	}
}

// told reports whether the device heard of r, and sends it again after a second if not.
func (r *refusal) told(t *testing.T, d *nodetest.Device, bad func() *paho.Publish, detail string) func() bool {
	t.Helper()
	last := time.Now()
	return func() bool {
		got := d.Received(d.Topic("rejected"))
		if len(got) == 0 {
			if time.Since(last) > 1100*time.Millisecond {
				last = time.Now()
				d.Send(bad())
			}
			return false
		}
		var notice map[string]string
		if err := json.Unmarshal(got[0].Payload, &notice); err != nil {
			t.Errorf("rejected: %v: %q", err, got[0].Payload)
			return true
		}
		if r.reason == "time_in_future" { // the detail names the receive time
			detail, notice["detail"] = "", ""
		}
		if diff := cmp.Diff(map[string]string{"reason": r.reason, "detail": detail}, notice); diff != "" {
			t.Errorf("%s: rejected (-letter +got):\n%s", r.name, diff)
		}
		if got[0].QoS != 0 || got[0].Retain {
			t.Errorf("rejected came with QoS %d, retain %v, want 0, false", got[0].QoS, got[0].Retain)
		}
		return true
	}
}

// balanced checks the accounts at rest (contract section 9).
func balanced(t *testing.T, n *nodetest.Node) {
	t.Helper()
	var m nodetest.Metrics
	if !nodetest.Poll(func() bool {
		m = n.Metrics()
		return m["doppel_samples_in_flight"] == 0 && m["doppel_samples_held"] == 0
	}) {
		t.Errorf("%v samples in flight and %v held at rest", m["doppel_samples_in_flight"], m["doppel_samples_held"])
	}
	if got, want := m.Settled(), m["doppel_samples_received_total"]; got != want {
		t.Errorf("received %v samples, settled %v", want, got)
	}
	a, err := n.Fleet().GetStatus(t.Context(), &doppelv1.GetStatusRequest{})
	if err != nil || len(a.GetNodes()) != 1 {
		t.Errorf("status: %v %v", a, err)
	}
}

// history is what a device knows of its good samples.
type history struct {
	metrics map[string]float64
	chain   device.Chain
}

// send sends one sample; the text has a place for its time, which must be there.
func (h *history) send(d *nodetest.Device, text string) {
	text = fmt.Sprintf(text, at+int64(h.chain.Samples)*1e9)
	var s struct {
		Boot, Seq uint64
		Time      int64
		Metrics   struct{ A float64 }
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		panic(err)
	}
	h.chain.Add(&device.Sample{Boot: s.Boot, Seq: s.Seq, Time: s.Time, Readings: []device.Reading{{Name: "a", Value: s.Metrics.A}}})
	d.Telemetry(text)
}
