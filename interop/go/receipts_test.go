package socp

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "socp.example/interop/gen/socp/v1"
)

func TestOwnReceipt(t *testing.T) {
	alice, bob := client(t, "alice"), client(t, "bob")
	asked := alice.Seal(Who{"bob", bob.ServerID}, &bob.Key.PublicKey, Content{Text: "hello", WantsReceipts: true})
	text, err := bob.openMessage(t.Context(), asked)
	if err != nil || !text.wantsReceipt {
		t.Fatal(text, err)
	}
	receipt := &pb.Receipt{Kind: pb.ReceiptKind_RECEIPT_KIND_READ, MessageIds: []string{text.ID, newID(time.Now())}}
	alice.receipts.ask(text.ID, Who{"bob", bob.ServerID})
	alice.receipts.ask(receipt.MessageIds[1], Who{"carol", bob.ServerID}) // not bob's to say
	sealed := bob.Seal(Who{"alice", alice.ServerID}, &alice.Key.PublicKey, Content{Receipt: receipt})
	if text, err = alice.openMessage(t.Context(), sealed); err != nil || !proto.Equal(text.Receipt, receipt) {
		t.Fatal(text, err)
	}
	equal(t, "answered", fmt.Sprint(text.Answered), fmt.Sprint(receipt.MessageIds[:1]))
}
