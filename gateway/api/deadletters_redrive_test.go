package api

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// mixedLetters are letters of every fate: offsets 0 to 7.
func mixedLetters() *apitest.Letters {
	l := &apitest.Letters{}
	good := `{"boot":1,"seq":7,"metrics":{"a":1}}`
	l.Add(
		&doppelv1.DeadLetter{Device: "d1", Reason: "quarantined", Payload: []byte(good), SourceTopic: "devices/d1/telemetry", ContentType: "application/json", Attempts: 2},
		&doppelv1.DeadLetter{Device: "d1", Reason: "not_decodable", Payload: []byte("{"), SourceTopic: "devices/d1/telemetry"},
		&doppelv1.DeadLetter{Device: "d2", Reason: "content_type", Payload: []byte("a;1"), SourceTopic: "root/of/d2/telemetry", ContentType: "text/csv"},
		&doppelv1.DeadLetter{Reason: "missing_key", Payload: []byte(good), SourceTopic: "doppel.ingest"},
		&doppelv1.DeadLetter{Device: "bad id", Reason: "device_id", Payload: []byte(good), SourceTopic: "devices/bad id/telemetry"},
		&doppelv1.DeadLetter{Device: "d1", Reason: "too_large", Payload: []byte(good), TruncatedFrom: 1 << 20, SourceTopic: "devices/d1/telemetry"},
		&doppelv1.DeadLetter{Device: "d1", Reason: "questdb_refused", Payload: []byte("telemetry,device=d1 a=1"), SourceTopic: "telemetry"},
		&doppelv1.DeadLetter{Device: "d1", Reason: "quarantined", Payload: []byte(`{"firmware":"2"}`), SourceTopic: "devices/d1/reported", Attempts: 4000},
	)
	return l
}

func redriveWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, HubConfig{})
	w.letters.Add(func() (all []*doppelv1.DeadLetter) {
		m := mixedLetters()
		_ = m.Scan(t.Context(), 0, 8, func(l *doppelv1.DeadLetter) error { all = append(all, l); return nil })
		return all
	}()...)
	return w
}

// TestRedrive: what can go goes in its order, once; the rest is named.
func TestRedrive(t *testing.T) {
	w := redriveWorld(t)
	want := &doppelv1.RedriveDeadLettersResponse{
		Redriven: 2, RefusedAgain: 2, NotRedrivable: 4,
		Problems: []*doppelv1.RedriveProblem{
			{Id: "0-1", Device: "d1", Reason: "not_decodable", Detail: "offset 1: unexpected end"},
			{Id: "0-2", Device: "d2", Reason: "content_type", Detail: `content type "text/csv" is not known; application/json, application/x-protobuf and application/msgpack are taken`},
			{Id: "0-3", Reason: "missing_key", Detail: "it is not known which device it is of"},
			{Id: "0-4", Device: "bad id", Reason: "device_id", Detail: `"bad id" is not a device id`},
			{Id: "0-5", Device: "d1", Reason: "too_large", Detail: "only 36 of its 1048576 bytes were kept; replace them"},
			{Id: "0-6", Device: "d1", Reason: "questdb_refused", Detail: "it is a row that QuestDB refused; its twin has taken the sample"},
		},
	}
	for _, dry := range []bool{true, false} {
		got, err := w.fleet.RedriveDeadLetters(t.Context(), &doppelv1.RedriveDeadLettersRequest{Filter: "true", DryRun: dry})
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range got.GetProblems() { // the decoder's words are its own business
			if i < len(want.GetProblems()) && p.GetReason() == "not_decodable" && p.GetDetail() != "" {
				want.Problems[i].Detail = p.GetDetail()
			}
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("dry run %v (-want +got):\n%s", dry, diff)
		}
		if n := len(w.letters.Sent()); dry && n > 0 {
			t.Errorf("a dry run sent %d letters", n)
		}
	}
	sent := []apitest.Sent{
		{Of: "0-0", Message: host.Message{
			Kind: host.Telemetry, Attempts: 3, Device: []byte("d1"), Payload: []byte(`{"boot":1,"seq":7,"metrics":{"a":1}}`),
			ContentType: "application/json", ReceivedAt: apitest.Epoch().UnixNano(), Topic: "devices",
		}},
		{Of: "0-7", Message: host.Message{
			Kind: host.Reported, Attempts: 255, Device: []byte("d1"), Payload: []byte(`{"firmware":"2"}`),
			ReceivedAt: apitest.Epoch().UnixNano() + 7e9, Topic: "devices",
		}},
	}
	if diff := cmp.Diff(sent, w.letters.Sent()); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
	again, err := w.fleet.RedriveDeadLetters(t.Context(), &doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-7", "0-0", "0-0"}})
	if err != nil || again.GetAlreadyDone() != 2 || again.GetRedriven() != 0 || len(w.letters.Sent()) != 2 {
		t.Errorf("again: %v, %v, %d sent; want 2 already done and nothing more sent", again, err, len(w.letters.Sent()))
	}
	open, err := w.fleet.RedriveDeadLetters(t.Context(), &doppelv1.RedriveDeadLettersRequest{Filter: "!redriven && device == 'd1'", DryRun: true})
	if err != nil || open.GetAlreadyDone() != 0 || open.GetNotRedrivable() != 2 || open.GetRefusedAgain() != 1 {
		t.Errorf("those not redriven: %v, %v; want 1 refused again and 2 that cannot be", open, err)
	}
}

// TestRedriveReplacement: corrected bytes go instead, of whatever content type, and only good ones.
func TestRedriveReplacement(t *testing.T) {
	for id, bytes := range map[string]string{
		"0-1": `{"boot":1,"seq":8,"metrics":{"a":1}}`,
		"0-2": `{"boot":1,"seq":9,"metrics":{"a":1}}`,
		"0-5": `{"boot":1,"seq":10,"metrics":{"a":1}}`,
		"0-7": `{"firmware":"3"}`,
	} {
		w := redriveWorld(t)
		for _, dry := range []bool{true, false} {
			bad, err := w.fleet.RedriveDeadLetters(t.Context(), &doppelv1.RedriveDeadLettersRequest{Ids: []string{id}, DryRun: dry, ReplacementPayload: []byte("{")})
			if err != nil || bad.GetRefusedAgain() != 1 || len(bad.GetProblems()) != 1 || bad.GetProblems()[0].GetReason() != "not_decodable" {
				t.Errorf("%s with bad bytes, dry run %v: %v, %v; want it refused again", id, dry, bad, err)
			}
		}
		got, err := w.fleet.RedriveDeadLetters(t.Context(), &doppelv1.RedriveDeadLettersRequest{Ids: []string{id}, ReplacementPayload: []byte(bytes)})
		if err != nil || got.GetRedriven() != 1 {
			t.Fatalf("%s: %v, %v; want it redriven", id, got, err)
		}
		sent := w.letters.Sent()
		if len(sent) != 1 || string(sent[0].Message.Payload) != bytes || sent[0].Message.ContentType == "text/csv" {
			t.Errorf("%s: sent %+v, want the corrected bytes once", id, sent)
		}
	}
}

func TestRedriveRefusals(t *testing.T) {
	w := redriveWorld(t)
	for _, tt := range []struct {
		code codes.Code
		want string
		req  *doppelv1.RedriveDeadLettersRequest
	}{
		{codes.InvalidArgument, "ids: is required, or a filter", &doppelv1.RedriveDeadLettersRequest{}},
		{codes.InvalidArgument, "ids: is required, or a filter", &doppelv1.RedriveDeadLettersRequest{Filter: "  "}},
		{codes.InvalidArgument, "filter: either ids or a filter", &doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-1"}, Filter: "true"}},
		{codes.InvalidArgument, `ids: "0-01" is not the id`, &doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-1", "0-01"}}},
		{codes.InvalidArgument, "filter: 1:1", &doppelv1.RedriveDeadLettersRequest{Filter: "nonsense"}},
		{codes.InvalidArgument, "ids: more than 1000", &doppelv1.RedriveDeadLettersRequest{Ids: make([]string, 1001)}},
		{codes.InvalidArgument, "replacement_payload: replaces the bytes of one", &doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-1", "0-2"}, ReplacementPayload: []byte("x")}},
		{codes.InvalidArgument, "replacement_payload: replaces the bytes of one", &doppelv1.RedriveDeadLettersRequest{Filter: "true", ReplacementPayload: []byte("x")}},
		{codes.NotFound, "no dead letter 0-8", &doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-0", "0-8"}}},
		{codes.NotFound, "no dead letter 0-99999", &doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-99999"}}},
		{codes.FailedPrecondition, "dead letter 0-3 cannot be redriven: it is not known which device", &doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-0", "0-3"}}},
		{codes.FailedPrecondition, `dead letter 0-4 cannot be redriven: "bad id" is not a device id`, &doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-4"}}},
		{codes.FailedPrecondition, "dead letter 0-5 cannot be redriven: only 36 of its 1048576 bytes", &doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-5"}}},
		{codes.FailedPrecondition, "dead letter 0-6 cannot be redriven: it is a row", &doppelv1.RedriveDeadLettersRequest{Ids: []string{"0-6"}, ReplacementPayload: []byte("x")}},
	} {
		_, err := w.fleet.RedriveDeadLetters(t.Context(), tt.req)
		wantStatus(t, err, tt.code, tt.want)
	}
	if sent := w.letters.Sent(); len(sent) > 0 {
		t.Errorf("sent %+v, want nothing while anything asked for is wrong", sent)
	}
	w.letters.Fail(errors.New("disk on fire"))
	_, err := w.fleet.RedriveDeadLetters(t.Context(), &doppelv1.RedriveDeadLettersRequest{Filter: "true"})
	wantStatus(t, err, codes.Unavailable, "0 letters were redriven, then the log failed; call again to go on: disk on fire")
	w.letters.Fail(nil)
	if got, err := w.fleet.RedriveDeadLetters(t.Context(), &doppelv1.RedriveDeadLettersRequest{Filter: "true"}); err != nil || got.GetRedriven() != 2 {
		t.Errorf("once it works again: %v, %v; want 2 redriven", got, err)
	}
}

// TestRedriveWhileTheLogIsSilent: the caller is answered in time, and nobody sends the same letter
// meanwhile.
func TestRedriveWhileTheLogIsSilent(t *testing.T) {
	w := newWorld(t, HubConfig{})
	for i := range 3 * redrivesInFlight {
		w.letters.Add(&doppelv1.DeadLetter{
			Device: "d", Reason: "quarantined", SourceTopic: "devices/d/telemetry", Payload: fmt.Appendf(nil, `{"boot":1,"seq":%d,"metrics":{"a":1}}`, i+1),
		})
	}
	unblock := w.letters.Block()
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := w.fleet.RedriveDeadLetters(ctx, &doppelv1.RedriveDeadLettersRequest{Filter: "true"})
		first <- err
	}()
	eventually(t, "as many as may be are on their way", func() bool { return len(w.letters.Sent()) == redrivesInFlight })
	cancel()
	if err := <-first; err == nil {
		t.Error("a redrive that was given up has no error")
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err := w.fleet.RedriveDeadLetters(ctx, &doppelv1.RedriveDeadLettersRequest{Filter: "true"})
	wantStatus(t, err, codes.Canceled, "")
	unblock()
	got, err := w.fleet.RedriveDeadLetters(t.Context(), &doppelv1.RedriveDeadLettersRequest{Filter: "true"})
	if err != nil || got.GetAlreadyDone() < redrivesInFlight || got.GetAlreadyDone()+got.GetRedriven() != 3*redrivesInFlight {
		t.Errorf("then: %v, %v; want the rest redriven", got, err)
	}
	if n := len(w.letters.Sent()); n != 3*redrivesInFlight {
		t.Errorf("sent %d letters, want each of %d once", n, 3*redrivesInFlight)
	}
	for i, s := range w.letters.Sent() {
		if want := fmt.Sprintf("0-%d", i); s.Of != want {
			t.Fatalf("sent %s as number %d, want %s: each once, in order", s.Of, i, want)
		}
	}
}

// TestResetTwin returns the twin as it is afterwards.
func TestResetTwin(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(&doppelv1.Twin{Id: "d", Quarantined: true, Seq: 7})
	got, err := w.twins.ResetTwin(t.Context(), &doppelv1.ResetTwinRequest{Id: "d"})
	if err != nil || got.GetQuarantined() || got.GetSeq() != 7 {
		t.Errorf("got %v, %v; want the twin, not quarantined", got, err)
	}
	_, err = w.twins.ResetTwin(t.Context(), &doppelv1.ResetTwinRequest{Id: "nobody"})
	wantCode(t, err, codes.NotFound, "")
	_, err = w.twins.ResetTwin(t.Context(), &doppelv1.ResetTwinRequest{Id: "a b"})
	wantCode(t, err, codes.InvalidArgument, "id")
	w.Fail(fmt.Errorf("p3: %w", host.ErrUnavailable))
	_, err = w.twins.ResetTwin(t.Context(), &doppelv1.ResetTwinRequest{Id: "d"})
	wantCode(t, err, codes.Unavailable, "")
}
