package web

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestGRPCWeb(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("aa:bb", 3))
	msg, err := proto.Marshal(&doppelv1.GetTwinRequest{Id: "aa:bb"})
	if err != nil {
		t.Fatal(err)
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg)))
	code, header, got := s.do(t, "POST", "/doppel.v1.TwinService/GetTwin", "application/grpc-web+proto", append(frame, msg...))
	if code != http.StatusOK || header.Get("Content-Type") != "application/grpc-web+proto" || len(got) < 5 {
		t.Fatalf("got %d %v %q", code, header, got)
	}
	size := binary.BigEndian.Uint32(got[1:5])
	var tw doppelv1.Twin
	if err := proto.Unmarshal(got[5:5+size], &tw); err != nil || tw.GetId() != "aa:bb" || tw.GetSeq() != 3 {
		t.Errorf("got %v, %v", &tw, err)
	}
	if trailer := strings.ToLower(string(got[5+size:])); !strings.Contains(trailer, "grpc-status: 0") && !strings.Contains(trailer, "grpc-status:0") {
		t.Errorf("trailer %q", trailer)
	}
}

func TestConnect(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("aa:bb", 3))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/doppel.v1.TwinService/GetTwin", strings.NewReader(`{"id":"aa:bb"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Connect-Protocol-Version", "1")
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got["seq"] != "3" {
		t.Errorf("got %v, %v", got, err)
	}
}

// Plain gRPC works on the HTTP address, too.
func TestGRPC(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("aa:bb", 3))
	conn, err := grpc.NewClient(strings.TrimPrefix(s.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	twins := doppelv1.NewTwinServiceClient(conn)
	if got, err := twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: "aa:bb"}); err != nil || got.GetSeq() != 3 {
		t.Errorf("got %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch, err := twins.WatchTwins(ctx, &doppelv1.WatchTwinsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetSnapshotDone() != nil {
			s.Put(apitest.Twin("aa:bb", 4))
		}
		if m.GetChanged().GetSeq() == 4 {
			return
		}
	}
}
