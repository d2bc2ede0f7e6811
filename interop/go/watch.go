package socp

// Who is online, as one stream after the other shows it.

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "socp.example/interop/gen/socp/v1"
)

// View sums up what the watch shows, and how it fared.
type View struct {
	Digest      string `json:"digest"`
	Users       int    `json:"users"`
	Resumed     int    `json:"resumed"`
	StartedOver int    `json:"started_over"`
	Mismatched  int    `json:"mismatched"`
}

// watch keeps the view as one stream shows it.
func (c *Client) watch(ctx context.Context, good func()) error {
	var resume string
	var staged map[Who]*pb.DirectoryEntry // the state being loaded; the old view stays in sight until the end mark
	if c.locked(func() { resume = c.resume }); resume == "" {
		staged = map[Who]*pb.DirectoryEntry{}
	}
	ctx, cancel := context.WithCancel(ctx)
	alarm := time.AfterFunc(silence, cancel)
	defer alarm.Stop()
	stream, err := c.Directory.WatchDirectory(ctx, &pb.WatchDirectoryRequest{ResumeToken: resume}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	// The headers say that a token was taken; a bookmark may be 15 s away. A refusal has no headers.
	if header, err := stream.Header(); err == nil && header != nil && resume != "" {
		c.locked(func() { c.counts.Resumed++ })
	}
	compacted := false
	for seen := uint64(0); ; alarm.Reset(silence) {
		m, err := stream.Recv()
		var tell []func()
		c.locked(func() {
			switch token := refusal(err).GetMetadata()["resume_token"]; {
			case err == nil:
				if tell, err = c.take(m, &staged, &seen); err != nil {
					c.resume = "" // start over
				}
			case Reason(err) == "REVISION_COMPACTED" || Reason(err) == "RESUME_TOKEN_INVALID":
				c.resume, compacted = "", true
				c.counts.StartedOver++
			case token != "" && staged == nil:
				c.resume = token
			}
		})
		for _, each := range tell {
			each()
		}
		if compacted || err == nil && staged == nil {
			good() // the server is there, and a token is refused no more than once
		}
		if err != nil {
			return err
		}
	}
}

// take applies one message of the watch, and gives what is to be told. An error means: start over.
func (c *Client) take(m *pb.WatchDirectoryResponse, staged *map[Who]*pb.DirectoryEntry, seen *uint64) (tell []func(), err error) {
	told := func(old, e *pb.DirectoryEntry) {
		switch {
		case e == nil:
			tell = append(tell, func() { c.Events.Removed(old) })
		case old == nil:
			tell = append(tell, func() { c.Events.Added(e) })
		case !proto.Equal(old, e):
			tell = append(tell, func() { c.Events.Updated(e) })
		}
	}
	set := func(who Who, e *pb.DirectoryEntry) { // nil removes
		into := c.view
		if *staged != nil {
			into = *staged
		} else if old := into[who]; old != nil || e != nil {
			told(old, e)
		}
		if into[who] = e; e == nil {
			delete(into, who)
		} else {
			c.labels[e.User] = who
		}
	}
	for _, change := range m.Changes {
		if change.Revision < *seen {
			return tell, errors.New("a revision went back")
		}
		*seen = change.Revision
		if gone := change.GetRemoved(); gone != nil {
			set(Who{gone.Name, gone.ServerId}, nil)
		} else if e := cmp.Or(change.GetAdded(), change.GetUpdated()); e != nil {
			set(Who{e.Name, e.ServerId}, e)
		}
	}
	var digest []byte
	if mark := m.EndMark; mark != nil && *staged != nil {
		if mark.Entries != uint64(len(*staged)) {
			return tell, errors.New("the state is not complete")
		}
		old := c.view
		c.view, *staged, *seen, digest = *staged, nil, mark.Revision, mark.Digest
		for who, e := range old {
			if c.view[who] == nil {
				told(e, nil)
			}
		}
		for who, e := range c.view {
			told(old[who], e)
		}
	}
	if m.Bookmark != nil && *staged == nil {
		*seen, digest = m.Bookmark.Revision, m.Bookmark.Digest
	}
	if len(digest) > 0 && [32]byte(digest) != Digest(c.view) {
		c.counts.Mismatched++
		return tell, errors.New("the digest is another")
	}
	if m.ResumeToken != "" && *staged == nil { // without its view a token is useless
		c.resume = m.ResumeToken
	}
	return tell, nil
}

// Find gives the entry of a user who is online, by `name@server-name`; nil for others.
func (c *Client) Find(user string) (found *pb.DirectoryEntry) {
	c.locked(func() {
		for _, e := range c.view {
			if e.User == user {
				found = e
			}
		}
	})
	return found
}

// View tells what the watch shows now.
func (c *Client) View() View {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, digest := c.counts, Digest(c.view)
	view.Users, view.Digest = len(c.view), hex.EncodeToString(digest[:])
	return view
}
