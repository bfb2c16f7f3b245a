package twin_test

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
)

// TestScripts runs testdata: "twin ID" makes a twin, "run" gives it inputs, one a line:
//
//	@10 sample 1/3 temperature=21.5 {"fw":1}   at 10 ms; boot/seq, or - without a number
//	@10 sample - time=7 recv=9 x=1             with its own time; received at 9 ms
//	@10 samples 1/3..9 x=1                     one for each seq, 100 ms apart
//	@10 refused 1/4 count=2                    or stale_boot
//	@10 gap 1/4                                boot/up to
//	@10 tick
//	@10 status online boot=1 session=7
//	@10 report 1/2 {"fw":1}                    or - without a number
//	@10 ack eva                                of an open alert, if there is one
//	@10 quarantined                            or reset, or anchor
//	@10 desire +site=brno -line {"rate":1}     tags set and removed, = replaces all; merge patch
//	@10 delete
//	@10 wake [unsettled]                       what the owner should do
//	describe
//
// After every block the logged inputs are given to a fresh twin, which must end up the same. Each
// script runs a second time with a twin that is encoded and decoded before every line.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range scripts {
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		t.Run(name, func(t *testing.T) { runScript(t, path, false) })
		t.Run(name+"/recoded", func(t *testing.T) { runScript(t, path, true) })
	}
}

func runScript(t *testing.T, path string, recoded bool) {
	w := &world{rules: builtin(t)}
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "twin":
			w.make(d.CmdArgs[0].Key)
			return ""
		case "run":
			var b strings.Builder
			for line := range strings.Lines(d.Input) {
				if recoded {
					w.tw = recode(t, w.tw)
				}
				b.WriteString(w.do(t, strings.TrimSpace(line)))
			}
			w.checkReplay(t)
			return b.String()
		default:
			t.Fatalf("%s: unknown directive %q", d.Pos, d.Cmd)
			return ""
		}
	})
}

// world is one twin and the log of its inputs.
type world struct {
	id    string
	tw    *twin.Twin
	rules *alert.Set
	now   int64
	out   twin.Effects
	log   []logged
	tail  uint32 // duplicates that no record in log carries
}

type logged struct {
	now        int64
	in         twin.Input
	duplicates uint32
}

func (w *world) make(id string) {
	*w = world{id: id, tw: twin.New(id, 0), rules: w.rules}
}

// step gives the twin an input and logs it if it must be.
func (w *world) step(in twin.Input) {
	w.tw.Step(w.now, &in, w.rules, &w.out)
	if w.out.Outcome.Logged() {
		w.log = append(w.log, logged{w.now, in, w.tw.TakeDuplicates()})
	}
}

// replay folds the log into a fresh twin.
func (w *world) replay() *twin.Twin {
	fresh := twin.New(w.id, 0)
	var out twin.Effects
	for i := range w.log {
		fresh.AddDuplicates(w.log[i].duplicates)
		fresh.Step(w.log[i].now, &w.log[i].in, w.rules, &out)
	}
	return fresh
}

func (w *world) checkReplay(t testing.TB) {
	t.Helper()
	fresh := w.replay()
	if got, want := fresh.Hash(), w.tw.Hash(); got != want {
		t.Errorf("replayed twin has state hash %x, want %x\ngot:\n%s\nwant:\n%s", got, want, describe(fresh), describe(w.tw))
	}
	w.tail += w.tw.TakeDuplicates()
	fresh.AddDuplicates(w.tail)
	if got, want := describe(fresh), describe(w.tw); got != want {
		t.Errorf("replayed twin:\n%s\nwant:\n%s", got, want)
	}
}

func (w *world) do(t *testing.T, line string) string {
	if line == "" {
		return ""
	}
	if line == "describe" {
		return describe(w.tw)
	}
	line, text, hasText := strings.Cut(line, "{")
	words := strings.Fields(line)
	ms, err := strconv.ParseInt(strings.TrimPrefix(words[0], "@"), 10, 64)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	w.now = millis(ms)
	in := twin.Input{ReceivedAt: w.now}
	var patch []byte
	if hasText {
		patch = []byte("{" + text)
	}
	switch verb, args := words[1], words[2:]; verb {
	case "sample":
		sample(t, &in, args, patch)
	case "samples":
		return w.samples(t, args)
	case "refused":
		in.Kind, in.Refused = twin.KindRefused, twin.Refused{Reason: twin.NotFinite, Count: 1}
		in.Refused.Numbered, in.Refused.Boot, in.Refused.Seq = number(t, args[0])
		for _, kv := range args[1:] {
			if kv == string(twin.StaleBoot) {
				in.Refused.Reason = twin.StaleBoot
				continue
			}
			in.Refused.Count = uint32(value(t, kv, "count"))
		}
	case "gap":
		in.Kind = twin.KindGap
		_, in.Gap.Boot, in.Gap.UpTo = number(t, args[0])
	case "tick":
		in.Kind = twin.KindTick
	case "status":
		status(t, &in, args)
	case "report":
		in.Kind, in.Reported.Patch = twin.KindReported, patch
		in.Reported.Numbered, in.Reported.Boot, in.Reported.Seq = number(t, args[0])
		for _, kv := range args[1:] {
			in.ReceivedAt = millis(int64(value(t, kv, "recv")))
		}
	case "desire":
		in.Kind, in.Desired.Patch = twin.KindDesired, patch
		desire(t, &in.Desired, args)
	case "delete":
		in.Kind = twin.KindDeleted
	case "ack": // of all open alerts
		in.Kind, in.Acknowledgement = twin.KindAcknowledged, alert.Acknowledgement{By: args[0]}
		for _, a := range w.tw.AllOpenAlerts() {
			in.Acknowledgement.Alert = a.ID
		}
	case "quarantined":
		in.Kind = twin.KindQuarantined
	case "reset":
		in.Kind = twin.KindReset
	case "anchor":
		in.Kind = twin.KindAnchor
	case "wake":
		return w.wake(args)
	default:
		t.Fatalf("unknown input %q", verb)
	}
	w.step(in)
	return strings.TrimSpace(line) + ": " + effects(&w.out) + "\n"
}

// samples steps a range of numbers, counts what is plainly applied or held and shows the rest.
func (w *world) samples(t *testing.T, args []string) string {
	first, last, _ := strings.Cut(args[0], "..")
	_, boot, seq := number(t, first)
	to, err := strconv.ParseUint(last, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	n := map[twin.Outcome]int{}
	for ; seq <= to; seq++ {
		in := twin.Input{ReceivedAt: w.now}
		sample(t, &in, append([]string{fmt.Sprintf("%d/%d", boot, seq)}, args[1:]...), nil)
		w.step(in)
		switch o := w.out.Outcome; {
		case o == twin.Applied && len(w.out.Applied) == 1 && len(w.out.Transitions) == 0, o == twin.Held:
			n[o]++
		default:
			fmt.Fprintf(&b, "  %d/%d: %s\n", boot, seq, effects(&w.out))
		}
		w.now += millis(100)
	}
	return fmt.Sprintf("samples %s: %d applied, %d held\n%s", args[0], n[twin.Applied], n[twin.Held], b.String())
}

func (w *world) wake(args []string) string {
	lim := twin.SettledLimits()
	if len(args) > 0 {
		lim = twin.UnsettledLimits()
	}
	due := "never"
	if d := w.tw.DueWithin(lim); d != 0 {
		due = fmt.Sprintf("@%d", d/int64(time.Millisecond))
	}
	in, ok := w.tw.Wake(w.now, lim)
	switch {
	case !ok:
		return fmt.Sprintf("wake: nothing, due %s\n", due)
	case in.Kind == twin.KindGap:
		return fmt.Sprintf("wake: gap %d/%d forced=%v, due %s\n", in.Gap.Boot, in.Gap.UpTo, in.Gap.Forced, due)
	default:
		return fmt.Sprintf("wake: tick, due %s\n", due)
	}
}

func sample(t *testing.T, in *twin.Input, args []string, patch []byte) {
	in.Kind = twin.KindSample
	sm := &in.Sample
	sm.Reported = patch
	sm.Numbered, sm.Boot, sm.Seq = number(t, args[0])
	for _, kv := range args[1:] {
		name, text, _ := strings.Cut(kv, "=")
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatalf("%q: %v", kv, err)
		}
		switch name {
		case "time":
			sm.Timed, sm.Time = true, millis(int64(v))
		case "recv":
			in.ReceivedAt = millis(int64(v))
		default:
			sm.Readings = append(sm.Readings, twin.Reading{Name: name, Value: v})
		}
	}
	slices.SortFunc(sm.Readings, func(a, b twin.Reading) int { return strings.Compare(a.Name, b.Name) })
}

func status(t *testing.T, in *twin.Input, args []string) {
	in.Kind, in.Status.Online = twin.KindStatus, args[0] == "online"
	for _, kv := range args[1:] {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "boot":
			in.Status.HasBoot, in.Status.Boot = true, value(t, kv, name)
		case "session":
			in.Status.HasSession, in.Status.Session = true, value(t, kv, name)
		case "recv":
			in.ReceivedAt = millis(int64(value(t, kv, name)))
		default:
			t.Fatalf("status: %q", kv)
		}
	}
}

func desire(t *testing.T, d *twin.Desired, args []string) {
	t.Helper()
	for _, arg := range args {
		key, v, _ := strings.Cut(arg[1:], "=")
		switch arg[0] {
		case '=':
			d.ReplaceTags = true
		case '+':
			if d.Tags == nil {
				d.Tags = map[string]string{}
			}
			d.Tags[key] = v
		case '-':
			d.RemovedTags = append(d.RemovedTags, key)
		default:
			t.Fatalf("desire: %q", arg)
		}
	}
}

func number(t *testing.T, s string) (numbered bool, boot, seq uint64) {
	if s == "-" {
		return false, 0, 0
	}
	if _, err := fmt.Sscanf(s, "%d/%d", &boot, &seq); err != nil {
		t.Fatalf("%q: want BOOT/SEQ or -: %v", s, err)
	}
	return true, boot, seq
}

func value(t *testing.T, kv, name string) uint64 {
	v, err := strconv.ParseUint(strings.TrimPrefix(kv, name+"="), 10, 64)
	if err != nil {
		t.Fatalf("%q: %v", kv, err)
	}
	return v
}

func millis(ms int64) int64 { return ms * int64(time.Millisecond) }

var outcomes = map[twin.Outcome]string{
	twin.Unchanged: "unchanged", twin.Applied: "applied", twin.Held: "held", twin.Late: "late",
	twin.Duplicate: "duplicate", twin.Refuse: "refuse",
}

func effects(out *twin.Effects) string {
	var b strings.Builder
	b.WriteString(outcomes[out.Outcome])
	if out.Outcome == twin.Refuse {
		fmt.Fprintf(&b, " %s: %s", out.Reason, out.Detail)
	}
	for i := range out.Applied {
		b.WriteString(" [" + applied(&out.Applied[i]) + "]")
	}
	if out.Tell {
		b.WriteString(" tell")
	}
	for _, a := range out.Transitions {
		fmt.Fprintf(&b, "\n    %s", transition(&a))
	}
	return b.String()
}

func applied(a *twin.AppliedSample) string {
	var b strings.Builder
	if a.Numbered {
		fmt.Fprintf(&b, "%d/%d", a.Boot, a.Seq)
	} else {
		fmt.Fprintf(&b, "@%d", a.Time/int64(time.Millisecond))
	}
	fmt.Fprintf(&b, " #%d", a.Count)
	if a.Own {
		b.WriteString(" own")
	}
	if a.Late {
		b.WriteString(" late")
	}
	for _, r := range a.Readings {
		fmt.Fprintf(&b, " %s=%v", r.Name, r.Value)
		if !math.IsNaN(r.Z) {
			fmt.Fprintf(&b, "(z %.2f score %.2f)", r.Z, r.Score)
		}
	}
	if a.Reported != nil {
		fmt.Fprintf(&b, " %s", a.Reported)
	}
	return b.String()
}

func transition(a *alert.Alert) string {
	state := map[alert.State]string{alert.Pending: "pending", alert.Firing: "firing", alert.Resolved: "resolved"}[a.State]
	severity := map[alert.Severity]string{alert.Info: "info", alert.Warning: "warning", alert.Critical: "critical"}[a.Severity]
	s := fmt.Sprintf("%s %s %s", a.Rule, severity, state)
	if a.Metric != "" {
		s += " " + a.Metric
	}
	if len(a.Tags) > 0 {
		s += fmt.Sprint(" ", a.Tags)
	}
	return s + ": " + a.Reason
}

// describe is the whole readable state of a twin.
func describe(t *twin.Twin) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %s version %d, at %d/%d, online %v, seen @%d\n", t.ID(), t.Version(), t.Boot(), t.Seq(), t.Online(), t.LastSeen()/int64(time.Millisecond))
	fmt.Fprintf(&b, "  digest %016x set %016x\n", t.Digest(), t.SetDigest())
	c := t.Counters()
	fmt.Fprintf(&b, "  applied %d late %d duplicate %d dead %d held %d gaps %d missing %d\n",
		c.Applied, c.Late, c.Duplicate, c.DeadLettered, c.Held, c.Gaps, c.Missing)
	if t.Quarantined() {
		b.WriteString("  quarantined\n")
	}
	for _, m := range t.AppendMetrics(nil) {
		fmt.Fprintf(&b, "  %s = %v @%d, z %.2f, before: n %d mean %.3f stddev %.3f min %v max %v\n",
			m.Name, m.Value, m.Time/int64(time.Millisecond), m.Z, m.Stats.Count, m.Stats.Mean, m.Stats.Stddev, m.Stats.Min, m.Stats.Max)
	}
	if t.ReportedVersion() > 0 {
		fmt.Fprintf(&b, "  reported %d %s\n", t.ReportedVersion(), t.Reported())
	}
	if t.DesiredVersion() > 0 {
		fmt.Fprintf(&b, "  desired %d %s delta %s", t.DesiredVersion(), t.Desired(), t.AppendDelta(nil))
		if since := t.DivergeTime(); since != 0 {
			fmt.Fprintf(&b, " since @%d", since/int64(time.Millisecond))
		}
		if took, ok := t.Convergence(); ok {
			fmt.Fprintf(&b, " took %v", time.Duration(took))
		}
		b.WriteString("\n")
	}
	if t.TagsVersion() > 0 {
		fmt.Fprintf(&b, "  tags %d %v\n", t.TagsVersion(), t.Tags())
	}
	if t.Deleted() {
		b.WriteString("  deleted\n")
	}
	if t.Lives() > 0 {
		fmt.Fprintf(&b, "  %d former lives with %d rows\n", t.Lives(), t.FormerRows())
	}
	for _, a := range t.OpenAlerts() {
		fmt.Fprintf(&b, "  open %s\n", transition(&a))
	}
	return b.String()
}
