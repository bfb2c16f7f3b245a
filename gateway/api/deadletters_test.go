package api

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// letters adds n letters: every third of pump-1, every tenth too large, the others not decodable.
func letters(l *apitest.Letters, n int) {
	for i := range n {
		d := &doppelv1.DeadLetter{Device: "pump-2", Reason: "not_decodable", Payload: []byte("x"), SourceTopic: "devices/pump-2/telemetry"}
		if i%3 == 0 {
			d.Device, d.SourceTopic = "pump-1", "devices/pump-1/telemetry"
		}
		if i%10 == 0 {
			d.Reason = "too_large"
		}
		l.Add(d)
	}
}

func ids(letters []*doppelv1.DeadLetter) []string {
	var all []string
	for _, l := range letters {
		all = append(all, l.GetId())
	}
	return all
}

// pagesOf reads all pages and returns the ids and the counts of the first.
func pagesOf(t *testing.T, w *world, req *doppelv1.ListDeadLettersRequest, between func()) (all []string, byReason map[string]uint64) {
	t.Helper()
	for first := true; ; first = false {
		resp, err := w.fleet.ListDeadLetters(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ids(resp.GetDeadLetters())...)
		if first {
			byReason = resp.GetByReason()
		}
		if resp.GetNextPageToken() == "" {
			return all, byReason
		}
		req.PageToken = resp.GetNextPageToken()
		between()
	}
}

// TestListDeadLetters: newest first, filtered and counted, in pages that stay while letters come and go.
func TestListDeadLetters(t *testing.T) {
	w := newWorld(t, HubConfig{})
	letters(w.letters, 3000) // more than a window
	var want []string
	for i := 2999; i >= 0; i-- {
		if i%3 == 0 {
			want = append(want, fmt.Sprintf("0-%d", i))
		}
	}
	for _, size := range []int32{0, 7, 999, 1000, 5000} {
		got, byReason := pagesOf(t, w, &doppelv1.ListDeadLettersRequest{Filter: `device == "pump-1"`, PageSize: size}, func() { letters(w.letters, 5) })
		if diff := cmp.Diff(want, got[len(got)-1000:]); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
		if byReason["too_large"] < 100 || byReason["not_decodable"] < 900 {
			t.Errorf("pages of %d: by reason %v, want 100 and 900", size, byReason)
		}
	}
	for filter, want := range map[string]int{
		`reason == "too_large" && sourceTopic.startsWith("devices/pump-2")`: 2, `receive_time >= timestamp("2026-11-22T10:00:29Z")`: 1,
		`size(payload) > 1`: 0, `redriven`: 0, `attempts == 0`: 30, ``: 30,
	} {
		w := newWorld(t, HubConfig{})
		letters(w.letters, 30)
		resp, err := w.fleet.ListDeadLetters(t.Context(), &doppelv1.ListDeadLettersRequest{Filter: filter})
		if err != nil || len(resp.GetDeadLetters()) != want {
			t.Errorf("%s: %d letters, %v; want %d", filter, len(resp.GetDeadLetters()), err, want)
		}
		var sum uint64
		for _, n := range resp.GetByReason() {
			sum += n
		}
		if sum != uint64(want) {
			t.Errorf("%s: by reason %v, want %d in all", filter, resp.GetByReason(), want)
		}
	}
}

// TestLettersPagesAreFull: the last page has no token, a page whose filter finds little has one only if
// there is more to look at, and letters that expire meanwhile harm nobody.
func TestLettersPagesAreFull(t *testing.T) {
	w := newWorld(t, HubConfig{})
	letters(w.letters, 20)
	first, err := w.fleet.ListDeadLetters(t.Context(), &doppelv1.ListDeadLettersRequest{PageSize: 10})
	if err != nil || len(first.GetDeadLetters()) != 10 || first.GetNextPageToken() == "" {
		t.Fatalf("got %v, %v; want 10 letters and a token", first, err)
	}
	second, err := w.fleet.ListDeadLetters(t.Context(), &doppelv1.ListDeadLettersRequest{PageSize: 10, PageToken: first.GetNextPageToken()})
	if err != nil || len(second.GetDeadLetters()) != 10 || second.GetNextPageToken() != "" || len(second.GetByReason()) != 0 {
		t.Errorf("got %v, %v; want the last 10 letters, without token and counts", second, err)
	}
	w.letters.Expire(15)
	gone, err := w.fleet.ListDeadLetters(t.Context(), &doppelv1.ListDeadLettersRequest{PageSize: 10, PageToken: first.GetNextPageToken()})
	if err != nil || len(gone.GetDeadLetters()) != 0 || gone.GetNextPageToken() != "" {
		t.Errorf("all expired: got %v, %v; want nothing", gone, err)
	}
}

// TestLettersFitAMessage: however large the letters, a page fits what gRPC takes, and none is left out.
func TestLettersFitAMessage(t *testing.T) {
	w := newWorld(t, HubConfig{})
	var want []string
	for i := range 40 {
		size := 900 << 10
		if i%4 > 0 {
			size = 10 << 10 * (i % 4)
		}
		w.letters.Add(&doppelv1.DeadLetter{Device: "d", Reason: "too_large", Payload: bytes.Repeat([]byte{1}, size)})
		want = append([]string{fmt.Sprintf("0-%d", i)}, want...)
	}
	got, _ := pagesOf(t, w, &doppelv1.ListDeadLettersRequest{PageSize: 1000}, func() {})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	resp, err := w.fleet.ListDeadLetters(t.Context(), &doppelv1.ListDeadLettersRequest{ReadMask: maskOf("device", "reason")})
	if err != nil || len(resp.GetDeadLetters()) != 40 || resp.GetDeadLetters()[0].GetPayload() != nil || resp.GetDeadLetters()[0].GetReason() != "too_large" {
		t.Errorf("without payloads: %d letters, %v; want all 40 on a page", len(resp.GetDeadLetters()), err)
	}
}

func TestListDeadLettersRefusals(t *testing.T) {
	w := newWorld(t, HubConfig{})
	letters(w.letters, 20)
	page, err := w.fleet.ListDeadLetters(t.Context(), &doppelv1.ListDeadLettersRequest{PageSize: 1, Filter: "true"})
	if err != nil {
		t.Fatal(err)
	}
	overlong := sealToken(tokenLetters, append(make([]byte, 8), bytes.Repeat([]byte{255}, 9)...))
	for _, tt := range []struct {
		want string
		req  *doppelv1.ListDeadLettersRequest
	}{
		{"page_size: -1 is negative: want at most 1000, or 0 for the default", &doppelv1.ListDeadLettersRequest{PageSize: -1}},
		{"filter: 1:1: undeclared reference", &doppelv1.ListDeadLettersRequest{Filter: "nonsense"}},
		{"page_token: belongs to another filter", &doppelv1.ListDeadLettersRequest{PageToken: page.GetNextPageToken()}},
		{"page_token: not a token of this service", &doppelv1.ListDeadLettersRequest{PageToken: "x"}},
		{"page_token: token of another kind", &doppelv1.ListDeadLettersRequest{PageToken: sealToken(tokenPage, nil)}},
		{"page_token: belongs to another filter", &doppelv1.ListDeadLettersRequest{PageToken: overlong}},
		{`read_mask: "x": DeadLetter has no field`, &doppelv1.ListDeadLettersRequest{ReadMask: maskOf("x")}},
	} {
		_, err := w.fleet.ListDeadLetters(t.Context(), tt.req)
		wantStatus(t, err, codes.InvalidArgument, tt.want)
	}
}

func wantStatus(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if st := status.Convert(err); st.Code() != code || !strings.Contains(st.Message(), text) {
		t.Errorf("got %v %q, want %v %q", st.Code(), st.Message(), code, text)
	}
}
