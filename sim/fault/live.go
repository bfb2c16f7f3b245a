package fault

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/oracle"
)

// live asks the node what it has.
type live struct {
	conn *grpc.ClientConn
	http string
}

// callLimit bounds a call: a deep audit reads everything.
const callLimit = time.Minute

func dialNode(grpcAddr, httpAddr string) (*live, error) {
	conn, err := grpc.NewClient(grpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(oracle.Patience),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	return &live{conn: conn, http: httpAddr}, nil
}

func (l *live) close() { _ = l.conn.Close() }

// twins lists all twins.
func (l *live) twins(ctx context.Context) (map[string]*doppelv1.Twin, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	all := make(map[string]*doppelv1.Twin)
	client := doppelv1.NewTwinServiceClient(l.conn)
	for token := ""; ; {
		r, err := client.ListTwins(ctx, &doppelv1.ListTwinsRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, fmt.Errorf("list twins: %w", err)
		}
		for _, t := range r.GetTwins() {
			all[t.GetId()] = t
		}
		if token = r.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// audit is what the node says of its accounts and states; deep: of log and rows as well.
func (l *live) audit(ctx context.Context, deep bool) (*doppelv1.Audit, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	a, err := doppelv1.NewFleetServiceClient(l.conn).GetAudit(ctx, &doppelv1.GetAuditRequest{Deep: deep})
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return a, nil
}

// metrics are the samples of /metrics by what stands before the value, labels included.
func (l *live) metrics(ctx context.Context) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.http+"/metrics", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	m := make(map[string]float64)
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		if i := strings.LastIndexByte(s.Text(), ' '); i > 0 && s.Text()[0] != '#' {
			if v, err := strconv.ParseFloat(s.Text()[i+1:], 64); err == nil {
				m[s.Text()[:i]] = v
			}
		}
	}
	return m, nil
}
