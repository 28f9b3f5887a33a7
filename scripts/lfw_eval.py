#!/usr/bin/env python3
"""LFW view-2 protocol: 6000 pairs, 10 folds of 600 (300 same + 300 diff).
Usage: lfw_eval.py EMB.npz PAIRS.txt
EMB.npz: names = array of 'Name_0001' strings, emb = [N,D] float (any norm); failed faces: zero row.
Reports 10-fold accuracy (best threshold of the other 9 folds), VAL@FAR=1e-3 (FaceNet's: threshold from 9 folds, applied to 10th),
pooled TAR@FAR=1e-3/1e-2, EER, AUC. Similarity = cosine (== L2 on unit vectors).
EMB.npz is what `vultus eval pairs --embeddings-out EMB.npz` writes; the two agree to 1e-6. Needs NumPy."""
import sys, numpy as np
def read_pairs(path):
    L=[l.rstrip('\n').split('\t') for l in open(path)]
    if len(L[0])==1: L[0]=L[0][0].split()
    head=L[0]; nf,npf=(int(head[0]),int(head[1])) if len(head)==2 else (1,int(head[0]))
    out=[]; i=1
    for f in range(nf):
        for k in range(2*npf):
            p=L[i]; i+=1
            if len(p)==1: p=p[0].split()
            if len(p)==3: out.append((f'{p[0]}_{int(p[1]):04d}',f'{p[0]}_{int(p[2]):04d}',1,f))
            else: out.append((f'{p[0]}_{int(p[1]):04d}',f'{p[2]}_{int(p[3]):04d}',0,f))
    return out
def best_thr(s,y):
    o=np.argsort(-s,kind='stable'); ss=s[o]; yy=y[o]
    tp=np.cumsum(yy); fp=np.cumsum(1-yy); acc=(tp+((1-yy).sum()-fp))/len(s)
    k=int(np.argmax(acc)); return (ss[k]+(ss[k+1] if k+1<len(ss) else ss[k]))/2
def far_thr(s,y,far):
    neg=np.sort(s[y==0])[::-1]; k=int(np.floor(far*len(neg))); return neg[k] # accept s > thr => <= k false accepts
def auc_eer(s,y):
    o=np.argsort(-s,kind='stable'); yy=y[o]; P=yy.sum(); N=len(yy)-P
    tpr=np.concatenate([[0],np.cumsum(yy)/P]); fpr=np.concatenate([[0],np.cumsum(1-yy)/N])
    a=float(np.trapezoid(tpr,fpr)); k=int(np.argmin(np.abs(fpr-(1-tpr)))); return a,float((fpr[k]+1-tpr[k])/2)
def evaluate(sim,same,fold):
    sim=np.asarray(sim,float);same=np.asarray(same,int);fold=np.asarray(fold);A=[];V=[];F=[]
    for f in np.unique(fold):
        te=fold==f;tr=~te if (~te).any() else te
        t=best_thr(sim[tr],same[tr]);A.append(((sim[te]>t).astype(int)==same[te]).mean())
        t=far_thr(sim[tr],same[tr],1e-3);V.append((sim[te][same[te]==1]>t).mean());F.append((sim[te][same[te]==0]>t).mean())
    auc,eer=auc_eer(sim,same)
    tar=lambda far:float((sim[same==1]>far_thr(sim,same,far)).mean())
    return dict(acc=float(np.mean(A)),acc_std=float(np.std(A)),acc_se=float(np.std(A,ddof=1)/np.sqrt(len(A))) if len(A)>1 else 0.,val_far1e3=float(np.mean(V)),val_std=float(np.std(V)),far_real=float(np.mean(F)),tar_far1e3=tar(1e-3),tar_far1e2=tar(1e-2),eer=eer,auc=auc,n=len(sim))
def run(names,emb,pairs):
    emb=np.asarray(emb,np.float64); n=np.linalg.norm(emb,axis=1,keepdims=True); bad=(n[:,0]<1e-9); emb=emb/np.maximum(n,1e-9)
    ix={k:i for i,k in enumerate(names)}; S=[];Y=[];F=[];miss=0;und=0
    for a,b,y,f in pairs:
        if a not in ix or b not in ix: miss+=1; continue
        i,j=ix[a],ix[b]
        if bad[i] or bad[j]: und+=1
        S.append(emb[i]@emb[j]);Y.append(y);F.append(f)
    r=evaluate(S,Y,F);r['missing_pairs']=miss;r['undetected_pairs']=und;return r
if __name__=='__main__':
    z=np.load(sys.argv[1],allow_pickle=False); print(run([str(x) for x in z['names']],z['emb'],read_pairs(sys.argv[2])))
