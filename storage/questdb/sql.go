package questdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// errNoTable is QuestDB's answer to a query about a table that is not there.
var errNoTable = errors.New("table does not exist")

// sqlClient runs statements by QuestDB's HTTP endpoint. It is for the few that tables need, not for rows.
type sqlClient struct {
	url      *url.URL // without user
	user     *url.Userinfo
	client   *http.Client
	maxReply int64
}

func newSQLClient(u *url.URL, transport http.RoundTripper, timeout time.Duration) *sqlClient {
	base := *u
	base.User = nil
	base.Path = "/exec"
	return &sqlClient{url: &base, user: u.User, client: &http.Client{Transport: transport, Timeout: timeout}, maxReply: 16 << 20}
}

func (c *sqlClient) exec(ctx context.Context, stmt string) error {
	_, err := c.query(ctx, stmt)
	return err
}

// query gives the rows of stmt, values as encoding/json decodes them.
func (c *sqlClient) query(ctx context.Context, stmt string) ([][]any, error) {
	return c.ask(ctx, stmt, false)
}

// exact is query with numbers as json.Number: a LONG does not fit a float64.
func (c *sqlClient) exact(ctx context.Context, stmt string) ([][]any, error) {
	return c.ask(ctx, stmt, true)
}

func (c *sqlClient) ask(ctx context.Context, stmt string, exact bool) ([][]any, error) {
	u := *c.url
	u.RawQuery = url.Values{"query": {stmt}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("questdb statement: %w", err)
	}
	if c.user != nil {
		password, _ := c.user.Password()
		req.SetBasicAuth(c.user.Username(), password)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		// The url holds the statement; the cause says enough.
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("questdb statement: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to its end, or the connection is of no use
	b, err := io.ReadAll(io.LimitReader(resp.Body, c.maxReply))
	if err != nil {
		return nil, fmt.Errorf("questdb answer: %w", err)
	}
	var answer struct {
		Error   string
		Dataset [][]any
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if exact {
		dec.UseNumber()
	}
	if err := dec.Decode(&answer); err != nil {
		return nil, fmt.Errorf("questdb answer %s: %w", resp.Status, err)
	}
	switch {
	case strings.Contains(answer.Error, "table does not exist"):
		return nil, fmt.Errorf("questdb: %w", errNoTable)
	case answer.Error != "":
		return nil, fmt.Errorf("questdb: %s", answer.Error)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("questdb answer %s", resp.Status)
	}
	return answer.Dataset, nil
}
