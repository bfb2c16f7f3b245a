package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	"github.com/doppel-iot/doppel/gateway/auth"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const tokensFile = `tokens:
- {name: rita, token: token-of-the-reader, role: reader}
- {name: otto, token: token-of-the-operator, role: operator}
- {name: ada, token: token-of-the-admin, role: admin}
- {name: brno, token: token-of-brno-reader, role: admin, tags: {site: brno}}
- {name: quote, token: token-of-the-quotes, role: admin, tags: {site: "a\"] == \"x\" || true //"}}
`

// as is a context of a call with a token; empty: without one.
func as(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

var tokenOf = map[auth.Role]string{auth.Reader: "token-of-the-reader", auth.Operator: "token-of-the-operator", auth.Admin: "token-of-the-admin"}

func guarded(t *testing.T, change ...func(*auth.GuardConfig)) *world {
	t.Helper()
	cfg := auth.GuardConfig{Tokens: filepath.Join(t.TempDir(), "tokens.yaml"), Log: slog.New(slog.DiscardHandler)}
	if err := os.WriteFile(cfg.Tokens, []byte(tokensFile), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(&cfg)
	}
	g, err := auth.NewGuard(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(t, HubConfig{}, func(c *Config) { c.Guard = g })
}

// everyMethod are the RPCs of every service that is served.
func everyMethod(t *testing.T, w *world) (all []protoreflect.MethodDescriptor) {
	t.Helper()
	s := w.api.Server(insecure.NewCredentials())
	defer s.Stop()
	for name := range s.GetServiceInfo() {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			t.Fatal(err)
		}
		service, ok := d.(protoreflect.ServiceDescriptor)
		if !ok {
			t.Fatalf("%s is no service", name)
		}
		for i := range service.Methods().Len() {
			all = append(all, service.Methods().Get(i))
		}
	}
	slices.SortFunc(all, func(a, b protoreflect.MethodDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	return all
}

func fullMethod(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// invoke calls any RPC with an empty request, and returns the status of its first answer.
func invoke(ctx context.Context, w *world, m protoreflect.MethodDescriptor) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingServer() {
		return w.conn.Invoke(ctx, fullMethod(m), in, out)
	}
	s, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()}, fullMethod(m))
	if err != nil {
		return err
	}
	if err := s.SendMsg(in); err != nil && !errors.Is(err, io.EOF) { // it has its status already
		return err
	}
	return s.RecvMsg(out)
}

// TestEveryRPC: strangers are strangers everywhere, the next lower role is not enough anywhere, and the role
// that is asked for gets as far as the service. An RPC that is in no table fails here.
func TestEveryRPC(t *testing.T) {
	w := guarded(t)
	seen := 0
	for _, m := range everyMethod(t, w) {
		t.Run(string(m.FullName()), func(t *testing.T) {
			rule, ok := auth.RuleOf(fullMethod(m))
			if !ok {
				t.Fatal("nobody may call it: it is not in the table of gateway/auth")
			}
			seen++
			if rule.Open {
				if err := invoke(t.Context(), w, m); refused(err) {
					t.Errorf("anybody: %v", err)
				}
				return
			}
			wantReason(t, invoke(t.Context(), w, m), codes.Unauthenticated, auth.ReasonMissing)
			wantReason(t, invoke(as(t.Context(), "of-nobody-here-at-all"), w, m), codes.Unauthenticated, auth.ReasonInvalid)
			if rule.Role > auth.Reader {
				wantReason(t, invoke(as(t.Context(), tokenOf[rule.Role-1]), w, m), codes.PermissionDenied, auth.ReasonRole)
			}
			if err := invoke(as(t.Context(), tokenOf[rule.Role]), w, m); refused(err) {
				t.Errorf("%v: %v", rule.Role, err)
			}
			err := invoke(as(t.Context(), "token-of-brno-reader"), w, m)
			if rule.Whole {
				wantReason(t, err, codes.PermissionDenied, auth.ReasonScope)
			} else if refused(err) {
				t.Errorf("bound to tags: %v", err)
			}
		})
	}
	if seen < 30 {
		t.Errorf("%d RPCs, want at least 30", seen)
	}
}

func refused(err error) bool {
	c := status.Code(err)
	return c == codes.Unauthenticated || c == codes.PermissionDenied
}

func wantReason(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	st := status.Convert(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && st.Code() == code && info.GetReason() == reason {
			return
		}
	}
	t.Errorf("got %v %v, want %v %s", st.Code(), st.Details(), code, reason)
}

// scopedWorld has two twins of brno and one of oslo, each with an alert.
func scopedWorld(t *testing.T) (*world, context.Context) {
	t.Helper()
	w := guarded(t)
	for i, id := range []string{"b1", "b2", "o1"} {
		twin := apitest.Twin(id, i+1)
		site := "brno"
		if id == "o1" {
			site = "oslo"
		}
		twin.Tags["site"] = site
		w.Put(twin)
		w.Alarm(id, alert.Alert{ID: uint64(i + 1), Rule: "r", State: alert.Firing, Severity: alert.Warning, Tags: map[string]string{"site": site}})
	}
	return w, as(t.Context(), "token-of-brno-reader")
}

func twinIDs(twins []*doppelv1.Twin) (out []string) {
	for _, t := range twins {
		out = append(out, t.GetId())
	}
	slices.Sort(out)
	return out
}

// TestScope: an identity that is bound to tags meets a fleet without the others.
func TestScope(t *testing.T) {
	w, ctx := scopedWorld(t)
	for _, tc := range []struct{ filter, want string }{
		{"", "b1,b2"}, {"true", "b1,b2"}, {`id == "b1" || id == "o1"`, "b1"}, {"true // all", "b1,b2"}, {`tags["site"] == "oslo"`, ""},
	} {
		r, err := w.twins.ListTwins(ctx, &doppelv1.ListTwinsRequest{Filter: tc.filter})
		if err != nil {
			t.Errorf("%q: %v", tc.filter, err)
		}
		if got := strings.Join(twinIDs(r.GetTwins()), ","); got != tc.want || r.GetTotalSize() != int64(len(r.GetTwins())) {
			t.Errorf("%q: got %s of %d, want %s", tc.filter, got, r.GetTotalSize(), tc.want)
		}
	}
	_, err := w.twins.ListTwins(ctx, &doppelv1.ListTwinsRequest{Filter: `true) || (true`})
	wantCode(t, err, codes.InvalidArgument, "filter")
	r, err := w.twins.ListTwins(as(t.Context(), "token-of-the-quotes"), &doppelv1.ListTwinsRequest{})
	if err != nil || len(r.GetTwins()) != 0 {
		t.Errorf("a tag with quotes: got %v, %v", twinIDs(r.GetTwins()), err)
	}
	batch, err := w.twins.BatchGetTwins(ctx, &doppelv1.BatchGetTwinsRequest{Ids: []string{"o1", "b2", "x", "b2", "b1"}, ReadMask: maskOf("id")})
	if err != nil || strings.Join(twinIDs(batch.GetTwins()), ",") != "b1,b2" || strings.Join(batch.GetMissingIds(), ",") != "o1,x" {
		t.Errorf("batch: got %v, missing %v, %v", twinIDs(batch.GetTwins()), batch.GetMissingIds(), err)
	}
	alerts, err := w.alerts.ListAlerts(ctx, &doppelv1.ListAlertsRequest{})
	if err != nil || len(alerts.GetAlerts()) != 2 {
		t.Errorf("alerts: got %d, %v; want 2", len(alerts.GetAlerts()), err)
	}
}

// TestScopeOfOne: a twin, or an alert, of others is answered as one that does not exist.
func TestScopeOfOne(t *testing.T) {
	w, ctx := scopedWorld(t)
	calls := map[string]func(id string) error{
		"GetTwin": func(id string) error {
			_, err := w.twins.GetTwin(ctx, &doppelv1.GetTwinRequest{Id: id})
			return err
		},
		"ResetTwin": func(id string) error {
			_, err := w.twins.ResetTwin(ctx, &doppelv1.ResetTwinRequest{Id: id})
			return err
		},
		"DeleteTwin": func(id string) error {
			_, err := w.twins.DeleteTwin(ctx, &doppelv1.DeleteTwinRequest{Id: id})
			return err
		},
		"UpdateTwin": func(id string) error {
			_, err := w.twins.UpdateTwin(ctx, &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: id}, UpdateMask: maskOf("desired")})
			return err
		},
		"InvokeCommand": func(id string) error {
			_, err := w.twins.InvokeCommand(ctx, &doppelv1.InvokeCommandRequest{Id: id, Name: "x"})
			return err
		},
		"GetHistory": func(id string) error {
			_, err := w.twins.GetHistory(ctx, &doppelv1.GetHistoryRequest{Id: id, Metric: "temperature"})
			return err
		},
		"ReplayTwin": func(id string) error {
			_, err := w.twins.ReplayTwin(ctx, &doppelv1.ReplayTwinRequest{Id: id})
			return err
		},
	}
	for name, call := range calls {
		if err := call("o1"); status.Code(err) != codes.NotFound {
			t.Errorf("%s of another site: got %v, want NOT_FOUND", name, err)
		}
		if err := call("b1"); status.Code(err) == codes.NotFound || refused(err) {
			t.Errorf("%s of its own: %v", name, err)
		}
	}
	id := func(n byte) string { return "000000000000000" + string('0'+n) }
	if _, err := w.alerts.GetAlert(ctx, &doppelv1.GetAlertRequest{Id: id(1)}); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"GetAlert":         second(w.alerts.GetAlert(ctx, &doppelv1.GetAlertRequest{Id: id(3)})),
		"AcknowledgeAlert": second(w.alerts.AcknowledgeAlert(ctx, &doppelv1.AcknowledgeAlertRequest{Id: id(3)})),
		"ExplainAlert":     second(w.alerts.ExplainAlert(ctx, &doppelv1.ExplainAlertRequest{Id: id(3)})),
	} {
		if status.Code(err) != codes.NotFound {
			t.Errorf("%s of another site: got %v, want NOT_FOUND", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestScopeOfTags: nobody takes a twin out of what he sees, or into it; and tags are for admins.
func TestScopeOfTags(t *testing.T) {
	w, ctx := scopedWorld(t)
	update := func(ctx context.Context, tags map[string]string, paths ...string) error {
		_, err := w.twins.UpdateTwin(ctx, &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: "b1", Tags: tags}, UpdateMask: maskOf(paths...)})
		return err
	}
	for _, tc := range []struct {
		tags  map[string]string
		paths []string
		ok    bool
	}{
		{map[string]string{"site": "oslo"}, []string{"tags"}, false},
		{map[string]string{"line": "4"}, []string{"tags"}, false},
		{map[string]string{"site": "oslo"}, []string{"tags.site"}, false},
		{nil, []string{"tags.site"}, false},
		{map[string]string{"site": "oslo"}, nil, false},
		{map[string]string{"site": "brno", "line": "4"}, []string{"tags"}, true},
		{map[string]string{"line": "4"}, []string{"tags.line"}, true},
	} {
		err := update(ctx, tc.tags, tc.paths...)
		if got := !refused(err); got != tc.ok {
			t.Errorf("%v of %v: %v", tc.paths, tc.tags, err)
		}
		if !tc.ok {
			wantReason(t, err, codes.PermissionDenied, auth.ReasonScope)
		}
	}
	operator := as(t.Context(), tokenOf[auth.Operator])
	wantReason(t, update(operator, map[string]string{"line": "4"}, "tags.line"), codes.PermissionDenied, auth.ReasonRole)
	wantReason(t, update(operator, map[string]string{"line": "4"}), codes.PermissionDenied, auth.ReasonRole)
	if err := update(operator, map[string]string{"line": "4"}, "desired"); refused(err) {
		t.Error(err)
	}
	create := func(tags map[string]string) error {
		_, err := w.twins.UpdateTwin(ctx, &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: "new", Tags: tags}, AllowMissing: true})
		return err
	}
	if err := create(map[string]string{"site": "brno"}); refused(err) || status.Code(err) == codes.NotFound {
		t.Errorf("a new twin of its own: %v", err)
	}
	if err := create(nil); status.Code(err) != codes.NotFound {
		t.Errorf("a new twin of nobody: got %v", err)
	}
}

// TestScopeOfWatches: others do not show in a watch, not even by going.
func TestScopeOfWatches(t *testing.T) {
	w, ctx := scopedWorld(t)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	s, err := w.twins.WatchTwins(ctx, &doppelv1.WatchTwinsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	recv := func() *doppelv1.WatchTwinsResponse {
		t.Helper()
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if id := m.GetSnapshot().GetId() + m.GetChanged().GetId() + m.GetDeletedId(); id != "" {
			seen[id]++
			if strings.HasPrefix(id, "o") {
				t.Errorf("heard of %s", id)
			}
		}
		return m
	}
	for recv().GetSnapshotDone() == nil {
	}
	if len(seen) != 2 {
		t.Errorf("snapshot of %v", seen)
	}
	oslo := apitest.Twin("o1", 9)
	oslo.Tags["site"] = "oslo"
	w.Put(oslo)
	w.Remove("o1")
	w.Remove("b1")
	for m := recv(); m.GetDeletedId() != "b1"; m = recv() {
	}
	w.Put(apitest.Twin("b2", 12))
	for m := recv(); m.GetChanged().GetId() != "b2"; m = recv() {
	}
}

// TestJournal: every write is recorded, with who made it and what became of it; reads are not.
func TestJournal(t *testing.T) {
	entries := make(chan auth.Entry, 16)
	j := auth.NewJournal("n1", func(_ context.Context, _, b []byte, done func(error)) {
		var e auth.Entry
		if err := json.Unmarshal(b, &e); err != nil {
			t.Error(err)
		}
		entries <- e
		done(nil)
	}, slog.New(slog.DiscardHandler))
	life, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(life) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	g, err := auth.NewGuard(auth.GuardConfig{Tokens: writeTokens(t), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, HubConfig{}, func(c *Config) { c.Guard, c.Journal = g, j })
	w.Put(apitest.Twin("a", 1))
	reset := &doppelv1.ResetTwinRequest{Id: "a"}
	_, _ = w.twins.GetTwin(as(t.Context(), tokenOf[auth.Admin]), &doppelv1.GetTwinRequest{Id: "a"})
	_, _ = w.twins.ResetTwin(t.Context(), reset) // a stranger: nobody to record
	_, _ = w.twins.ResetTwin(as(t.Context(), tokenOf[auth.Reader]), reset)
	_, _ = w.twins.ResetTwin(as(t.Context(), tokenOf[auth.Admin]), reset)
	_, _ = w.twins.ResetTwin(as(t.Context(), tokenOf[auth.Admin]), &doppelv1.ResetTwinRequest{Id: "nobody"})
	for _, want := range []string{"rita PermissionDenied a", "ada OK a", "ada NotFound nobody"} {
		select {
		case e := <-entries:
			if got := e.Who + " " + e.Code + " " + e.Resource; got != want || e.Node != "n1" || e.Method != "doppel.v1.TwinService/ResetTwin" || e.Peer == "" {
				t.Errorf("got %+v, want %s", e, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no record of %s", want)
		}
	}
}

func writeTokens(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(file, []byte(tokensFile), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestRateOfAClient: who calls too often is told when to come again; watches are bounded, too.
func TestRateOfAClient(t *testing.T) {
	w := guarded(t, func(c *auth.GuardConfig) { c.Rate, c.Watches = 5, 1 })
	w.Put(apitest.Twin("a", 1))
	ctx := as(t.Context(), tokenOf[auth.Reader])
	var err error
	for range 60 {
		if _, err = w.twins.GetTwin(ctx, &doppelv1.GetTwinRequest{Id: "a"}); err != nil {
			break
		}
	}
	wantReason(t, err, codes.ResourceExhausted, auth.ReasonRate)
	admin := as(t.Context(), tokenOf[auth.Admin])
	first, err := w.twins.WatchTwins(admin, &doppelv1.WatchTwinsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Recv(); err != nil {
		t.Fatal(err)
	}
	second, err := w.twins.WatchTwins(admin, &doppelv1.WatchTwinsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = second.Recv()
	wantReason(t, err, codes.ResourceExhausted, auth.ReasonWatches)
}

// TestLocalWatchIsGuarded: the watches of other doors pass the same guard.
func TestLocalWatchIsGuarded(t *testing.T) {
	w, _ := scopedWorld(t)
	watch := func(token string) (got []string, err error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if token != "" {
			ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "Bearer "+token))
		}
		err = w.api.WatchTwins(ctx, &doppelv1.WatchTwinsRequest{}, func(m *doppelv1.WatchTwinsResponse) error {
			if m.GetSnapshotDone() != nil {
				cancel()
				return nil
			}
			got = append(got, m.GetSnapshot().GetId())
			return nil
		})
		return got, err
	}
	_, err := watch("")
	wantReason(t, err, codes.Unauthenticated, auth.ReasonMissing)
	if got, err := watch("token-of-brno-reader"); len(got) != 2 || status.Code(err) != codes.Canceled {
		t.Errorf("got %v, %v", got, err)
	}
	if got, _ := watch(tokenOf[auth.Reader]); len(got) != 3 {
		t.Errorf("got %v", got)
	}
}

func BenchmarkEnter(b *testing.B) {
	g, err := auth.NewGuard(auth.GuardConfig{Rate: 1e9, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := g.Enter(b.Context(), doppelv1.TwinService_GetTwin_FullMethodName, auth.CredentialsOf(b.Context())); err != nil {
			b.Fatal(err)
		}
	}
}
