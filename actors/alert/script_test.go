package alert

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/doppel-iot/doppel/actors/baseline"
	"github.com/doppel-iot/doppel/actors/state"
)

const device = "pump-7"

// script drives one Book. Times are seconds after the epoch, as decimals; every command prints the
// transitions it gave and when the next tick is due.
type script struct {
	t    *testing.T
	set  *Set
	book Book
	seq  uint64

	rules    []Rule
	silences []Silence
}

// The life cycles as text: testdata/*.txt says what each command does.
func TestLifeCycles(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		t.Helper()
		set, err := NewSet(Builtin())
		if err != nil {
			t.Fatal(err)
		}
		s := &script{t: t, set: set, rules: Builtin()}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			t.Helper()
			return s.run(d)
		})
	})
}

func (s *script) run(d *datadriven.TestData) string {
	var emit []Alert
	switch d.Cmd {
	case "rules":
		rules, err := parseRules(d.Input)
		if err != nil {
			d.Fatalf(s.t, "%v", err)
		}
		s.rules, s.silences = rules, nil
		s.set, err = NewSet(rules)
		if err != nil {
			return err.Error()
		}
		s.book = Book{}
		return "ok"
	case "change":
		rules, err := parseRules(d.Input)
		if err != nil {
			d.Fatalf(s.t, "%v", err)
		}
		s.rules = rules
		if s.set, err = NewSet(rules, s.silences...); err != nil {
			return err.Error()
		}
		s.book.Reconcile(s.set, device, seconds(d, 0), &emit)
	case "silence": // all of them, one a line: ID END SEVERITY
		var err error
		s.silences = nil
		for line := range strings.Lines(d.Input) {
			words := strings.Fields(line)
			s.silences = append(s.silences, Silence{ID: words[0], End: parseSeconds(d, s.t, words[1]), Match: severe(words[2])})
		}
		if s.set, err = NewSet(s.rules, s.silences...); err != nil {
			return err.Error()
		}
		s.book.Reconcile(s.set, device, seconds(d, 0), &emit)
	case "restore": // through the encoding, and through plain data
		var b, again Book
		in := state.NewReader(s.book.Encode(nil, 1e9), func(name []byte) string { return string(name) })
		if b.Decode(&in, 1e9); in.Err() != nil || in.Len() > 0 {
			d.Fatalf(s.t, "decode: %v, %d bytes left", in.Err(), in.Len())
		}
		again.Restore(b.Memory())
		s.book = again
		return s.state()
	case "open":
		return s.state()
	default:
		// One input a line: all lines of a block are run in order.
		var out strings.Builder
		for line := range strings.Lines(d.Input) {
			emit = emit[:0]
			s.input(d, strings.Fields(line), &emit)
			out.WriteString(render(emit))
		}
		fmt.Fprintf(&out, "due %s", stamp(s.book.Due()))
		return out.String()
	}
	return render(emit) + "due " + stamp(s.book.Due())
}

// input runs one line: AT VERB ARGUMENTS.
func (s *script) input(d *datadriven.TestData, words []string, emit *[]Alert) {
	at := parseSeconds(d, s.t, words[0])
	number := func(i int) float64 {
		v, err := strconv.ParseFloat(words[i], 64)
		if err != nil {
			d.Fatalf(s.t, "%v", err)
		}
		return v
	}
	switch words[1] {
	case "score": // METRIC VALUE PLAIN [SCORE]; without SCORE it is PLAIN
		s.seq++
		o := Observation{
			Metric: words[2], Value: number(3), Scored: true, Plain: number(4), Score: number(4),
			Stats: baseline.Stats{Count: 512, Mean: 21.4, Stddev: 1.25}, Boot: 3, Seq: s.seq, Time: at,
		}
		if len(words) > 5 {
			o.Score = number(5)
		}
		s.book.Sample(s.set, device, &o, emit)
	case "value": // METRIC VALUE, not scored
		s.seq++
		s.book.Sample(s.set, device, &Observation{Metric: words[2], Value: number(3), Boot: 3, Seq: s.seq, Time: at}, emit)
	case "seen":
		s.book.Seen(s.set, device, at, emit)
	case "every": // PERIOD COUNT: that many messages, the first at AT
		period := int64(number(2) * float64(time.Second))
		for i := range int64(number(3)) {
			s.book.Seen(s.set, device, at+i*period, emit)
		}
	case "online", "offline":
		s.book.Presence(s.set, device, words[1] == "online", at, emit)
	case "gap":
		s.book.Gap(s.set, device, at, uint64(number(2)), emit)
	case "back": // CURRENT BOOT SEQ
		s.book.WentBack(s.set, device, at, Setback{Current: uint64(number(2)), Boot: uint64(number(3)), Seq: uint64(number(4))}, emit)
	case "refused": // PERIOD COUNT: that many letters, the first at AT
		period := int64(number(2) * float64(time.Second))
		for i := range int64(number(3)) {
			s.book.Refused(s.set, device, at+i*period, emit)
		}
	case "renumbered":
		s.book.Renumbered(s.set, device, at, emit)
	case "tick":
		s.book.Tick(s.set, device, at, emit)
	case "ack": // RULE BY [COMMENT]: of its open alert
		k := Acknowledgement{By: words[3], Comment: strings.Join(words[4:], " ")}
		for _, a := range s.book.Open() {
			if a.Rule == words[2] {
				k.Alert = a.ID
			}
		}
		if !s.book.Acknowledge(s.set, device, &k, at, emit) {
			*emit = append(*emit, Alert{Rule: words[2], Reason: "nothing to acknowledge"})
		}
	case "diverged": // SINCE, 0: not any more
		s.book.Diverged(s.set, device, parseSeconds(d, s.t, words[2]), at, emit)
	case "expression": // true or false or error; with a word behind it not by a sample
		s.book.Evaluate(s.set, device, words[2], len(words) < 4, &Observation{Time: at, Boot: 3, Seq: s.seq}, emit)
	default:
		d.Fatalf(s.t, "unknown input %q", words[1])
	}
}

// severe is a silence of the alerts of a severity, or of all.
type severe string

func (want severe) Holds(seen any) (bool, error) {
	v, ok := seen.(*View)
	if !ok || v.Device != device || v.Alert.Silenced() {
		return false, fmt.Errorf("a silence sees %v", seen)
	}
	return want == "all" || v.Alert.Severity.String() == string(want), nil
}

// stated is a predicate whose truth the script states.
type stated struct{}

func (stated) Holds(twin any) (bool, error) { return strconv.ParseBool(fmt.Sprint(twin)) }

func (s *script) state() string {
	open := s.book.Open()
	if len(open) == 0 {
		return "nothing open, due " + stamp(s.book.Due())
	}
	return render(open) + "due " + stamp(s.book.Due())
}

func render(alerts []Alert) string {
	states := map[State]string{Pending: "PENDING", Firing: "FIRING", Resolved: "RESOLVED"}
	var out strings.Builder
	for i := range alerts {
		a := &alerts[i]
		name := a.Rule
		if a.Metric != "" {
			name += "/" + a.Metric
		}
		if a.State == 0 {
			out.WriteString(a.Reason + "\n")
			continue
		}
		fmt.Fprintf(&out, "%s %s %s v%d id=%016x created=%s fired=%s resolved=%s updated=%s by %d/%d%s: %s\n",
			states[a.State], a.Severity, name, a.RuleVersion, a.ID, stamp(a.CreateTime), stamp(a.FireTime),
			stamp(a.ResolveTime), stamp(a.UpdateTime), a.Boot, a.Seq, marks(a), a.Reason)
	}
	return out.String()
}

// marks are the fields of an alert that are not states.
func marks(a *Alert) string {
	var out strings.Builder
	if a.AcknowledgeTime != 0 {
		fmt.Fprintf(&out, " acknowledged=%s by %s (%s)", stamp(a.AcknowledgeTime), a.AcknowledgedBy, a.AcknowledgeComment)
	}
	if a.Silence != "" {
		out.WriteString(" silence=" + a.Silence)
	}
	if a.EscalateTime != 0 {
		out.WriteString(" escalated=" + stamp(a.EscalateTime))
	}
	if a.Flapping {
		out.WriteString(" flapping")
	}
	if a.Shadow {
		out.WriteString(" shadow")
	}
	return out.String()
}

func stamp(t int64) string {
	if t == 0 {
		return "-"
	}
	return strconv.FormatFloat(float64(t)/1e9, 'f', -1, 64)
}

func seconds(d *datadriven.TestData, fallback int64) int64 {
	for _, arg := range d.CmdArgs {
		if arg.Key == "at" {
			v, err := strconv.ParseFloat(arg.Vals[0], 64)
			if err == nil {
				return int64(v * 1e9)
			}
		}
	}
	return fallback
}

func parseSeconds(d *datadriven.TestData, t *testing.T, s string) int64 {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return int64(v * 1e9)
}

// parseRules reads rules as "id kind key=value…"; a level is warning=ENTER,EXIT[,OP[,LOW,HIGH]].
func parseRules(text string) ([]Rule, error) {
	var rules []Rule
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 1 && words[0] == "builtin" {
			rules = append(rules, Builtin()...)
			continue
		}
		r := Rule{ID: words[0], Version: 1, Kind: Kind(words[1])}
		for _, word := range words[2:] {
			key, value, _ := strings.Cut(word, "=")
			if err := setField(&r, key, value); err != nil {
				return nil, fmt.Errorf("%s: %w", word, err)
			}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func setField(r *Rule, key, value string) (err error) {
	severity := map[string]Severity{"info": Info, "warning": Warning, "critical": Critical, "odd": 9}[key]
	if severity != 0 {
		l := Level{Severity: severity}
		for i, part := range strings.Split(value, ",") {
			if i == 2 {
				l.Op = part
				continue
			}
			into := map[int]*float64{0: &l.Enter, 1: &l.Exit, 3: &l.Low, 4: &l.High}[i]
			if *into, err = strconv.ParseFloat(part, 64); err != nil {
				return err
			}
		}
		r.Levels = append(r.Levels, l)
		return nil
	}
	count := func() uint32 {
		var n uint64
		n, err = strconv.ParseUint(value, 10, 32)
		return uint32(n)
	}
	switch key {
	case "version":
		r.Version, err = strconv.ParseUint(value, 10, 64)
	case "metric":
		r.Metric = value
	case "device":
		r.Device = value
	case "tag":
		name, want, _ := strings.Cut(value, ":")
		r.Tags = map[string]string{name: want}
	case "mode":
		r.Mode = value
	case "expression":
		r.Expression = value
	case "compiled":
		r.Predicate = stated{}
	case "for_samples":
		r.ForSamples = count()
	case "window_samples":
		r.WindowSamples = count()
	case "min_samples":
		r.MinSamples = count()
	case "for":
		r.ForDuration, err = time.ParseDuration(value)
	case "escalate":
		r.EscalateAfter, err = time.ParseDuration(value)
	case "deescalate":
		r.DeescalateAfter, err = time.ParseDuration(value)
	case "flaps":
		r.FlapCount = count()
	case "flap_window":
		r.FlapWindow, err = time.ParseDuration(value)
	case "dwell":
		r.MinDwell, err = time.ParseDuration(value)
	case "window":
		r.Window, err = time.ParseDuration(value)
	default:
		err = fmt.Errorf("unknown key %q", key)
	}
	return err
}
